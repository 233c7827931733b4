"""Customer segments on the first of each month, by Airflow 3."""

from datetime import datetime, timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

PLACE = "{{ var.value.get('segmentation_place', '/srv/segmentation') }}"

with DAG(
    dag_id="customer_segments",
    schedule="30 4 1 * *",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
):
    BashOperator(
        task_id="segments",
        bash_command=f"{PLACE}/.venv/bin/segmentation run {PLACE}/customers.yaml --quiet "
        f"--output-dir {PLACE}/outputs --keep 24",
        execution_timeout=timedelta(hours=2),
        skip_on_exit_code=75,
    )
