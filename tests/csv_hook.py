"""What schemathesis sends where the API takes a CSV: a schema cannot tell one from any text."""

import schemathesis
from hypothesis import strategies as st

HEADER = "Age,Annual Income (k$),Spending Score (1-100)\n"


def write_csv(rows):
    """A CSV of the bundled table's features."""
    return (HEADER + "".join("{},{},{}\n".format(*row) for row in rows)).encode()


ROWS = st.tuples(st.integers(0, 120), st.floats(0, 10_000), st.integers(1, 100))
schemathesis.openapi.media_type("text/csv", st.lists(ROWS, min_size=1, max_size=5).map(write_csv))
