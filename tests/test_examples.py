"""The examples in docstrings run."""

import doctest
import importlib
import re
from pathlib import Path

import pytest

MODULES = ["kernels", "kmeans", "silhouettes", "preprocessing", "stability", "null"]
MODULES += ["selection", "sensitivity"]


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_clustering(name):
    module = importlib.import_module(f"segmentation.clustering.{name}")
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize("name", ["model", "profiles", "scorer", "value"])
def test_examples_of_segments(name):
    module = importlib.import_module(f"segmentation.segments.{name}")
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize("name", ["words", "reports.drawings", "reports.figures"])
def test_examples_of_words_and_reports(name):
    assert doctest.testmod(importlib.import_module(f"segmentation.{name}")).failed == 0


@pytest.mark.parametrize("run", ["recorded", pytest.param("published", marks=pytest.mark.long)])
def test_the_example_report_has_the_figures_of_a_run(run, request):
    kept = (Path(__file__).parents[1] / "docs/example/report.html").read_text("utf-8")
    now = (request.getfixturevalue(run) / "reports/report.html").read_text("utf-8")
    cells = [re.findall(r'data-cell="([^"]+)">([^<]*)<', page) for page in (kept, now)]
    if run == "recorded":  # of few resamples, on which these figures alone depend
        cells = [[cell for cell in each if "#stability." not in cell[0]] for each in cells]
    assert len(cells[0]) > 100
    assert cells[0] == cells[1]
    headlines = [re.search(r"<h1[^>]*>([^<]+)<", page) for page in (kept, now)]
    assert None not in headlines
    assert headlines[0][1] == headlines[1][1]
