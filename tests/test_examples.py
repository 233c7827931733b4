"""The examples in docstrings run."""

import doctest
import importlib

import pytest

MODULES = ["kernels", "kmeans", "silhouettes", "preprocessing", "stability", "null"]
MODULES += ["selection", "sensitivity"]


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_clustering(name):
    module = importlib.import_module(f"segmentation.clustering.{name}")
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize("name", ["model", "profiles", "scorer"])
def test_examples_of_segments(name):
    module = importlib.import_module(f"segmentation.segments.{name}")
    assert doctest.testmod(module).failed == 0
