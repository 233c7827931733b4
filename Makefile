# Every target sets itself up: .venv is made from requirements.lock; what develops adds dev.lock.
PYTHON ?= python3
OUTPUT ?= outputs
BIN    := .venv/bin
READY  := .venv/ready
DEV    := .venv/ready-to-develop
PIP     = $(BIN)/python -m pip install --quiet --disable-pip-version-check
RUNNING = lab tables postgres mysql sqlite service
COMPILE = uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --upgrade \
  --custom-compile-command "make lock"

.DEFAULT_GOAL := help
.PHONY: help report campaign lab serve test test-all bench bench-large calibrate example lint format lock clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' Makefile

report: $(READY)  ## run the series on the bundled table and print where the report is
	@$(BIN)/python run_all.py --output-dir "$(OUTPUT)"

campaign: $(READY)  ## send a letter to the made-up web shop and read it back a month later
	@$(BIN)/python docs/example/make_campaign.py "$(OUTPUT)"

lab: $(READY)  ## open the notebooks in JupyterLab
	@$(BIN)/jupyter lab $(if $(filter 0,$(shell id -u)),--allow-root) notebooks

serve: $(READY)  ## answer for the newest run on http://127.0.0.1:8000/
	@$(BIN)/segmentation serve --run "$(OUTPUT)/latest"

test: $(DEV) chromium postgres  ## run the tests, in parallel
	@$(BIN)/pytest -n auto --dist worksteal -m "not long"

test-all: $(DEV) chromium postgres mariadb spark  ## run the long tests too
	@$(BIN)/pytest -n auto --dist worksteal

bench: $(DEV) latest  ## measure beside peers (ten minutes) and write docs/benchmarks.md
	@$(BIN)/python benchmarks/bench.py

bench-large: $(DEV)  ## the same with ten and a hundred million rows (up to an hour)
	@$(BIN)/python benchmarks/bench.py --large

calibrate: $(DEV)  ## try the calibrated rule on simulated tables (up to an hour)
	@$(BIN)/python benchmarks/calibrate.py

example: $(DEV) chromium  ## make the example report and its pictures anew (docs/example)
	@$(BIN)/python docs/example/make_example.py

lint: $(DEV)  ## check style, formatting, types and that notebooks hold no outputs
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/nbstripout --verify notebooks/*.ipynb

format: $(DEV)  ## format the code and strip the notebooks' outputs
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .
	@$(BIN)/nbstripout notebooks/*.ipynb

lock:  ## write requirements.lock, dev.lock and scale.lock anew from pyproject.toml (needs uv)
	@$(COMPILE) $(RUNNING:%=--extra %) --group build pyproject.toml \
	  -o requirements.lock
	@for extra in dev scale; do \
	  $(PYTHON) -c "import tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
	    print(*project['optional-dependencies']['$$extra'], sep='\n')" | \
	    $(COMPILE) --constraint requirements.lock - -o $$extra.lock; done

clean:  ## remove the environment and the tools' caches (runs are kept)
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache *.egg-info

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "Python 3.11, 3.12 or 3.13 is needed; name one: make PYTHON=python3.12 …" >&2; exit 1; }
	@echo "Setting up .venv (once; a minute or two) …" >&2
	@$(PYTHON) -m venv --clear .venv
	@$(PIP) --require-hashes -r requirements.lock
	@$(PIP) --no-deps --no-build-isolation -e .
	@$(BIN)/python -c "from segmentation.clustering import null; null.warm_up()"
	@touch $(READY)

$(DEV): $(READY) dev.lock
	@$(PIP) --require-hashes -r dev.lock
	@touch $(DEV)

.PHONY: latest
latest: $(READY)
	@[ -e outputs/latest ] || $(BIN)/python run_all.py --quiet >/dev/null

# $(call need,how one sees that it is there,Debian's package,whose tests)
need = { $(1); } >/dev/null 2>&1 || \
  { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq && \
    apt-get install -y -qq --no-install-recommends $(2) >/dev/null; } || \
  echo "The tests of $(3) need Debian's package $(2); they are skipped without it." >&2

.PHONY: chromium postgres mariadb spark
chromium:
	@$(call need,command -v chromium || command -v google-chrome,chromium,the pages)

postgres:
	@$(call need,command -v initdb || ls /usr/lib/postgresql/*/bin/initdb,postgresql,PostgreSQL)

mariadb:
	@$(call need,command -v mariadbd || ls /usr/sbin/mariadbd,mariadb-server,MariaDB)

spark: $(READY)
	@$(PIP) --require-hashes -r scale.lock
	@$(call need,command -v java,openjdk-17-jre-headless,Spark)
