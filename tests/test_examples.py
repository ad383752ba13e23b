"""The examples in the docstrings are true."""

import doctest
import importlib
import pkgutil

import pytest

import mriflow

MODULES = [module.name for module in pkgutil.walk_packages(mriflow.__path__, "mriflow.")]


def test_there_are_examples():
    finder = doctest.DocTestFinder()
    with_examples = {name for name in MODULES for test in finder.find(importlib.import_module(name)) if test.examples}
    assert len(with_examples) > 15


@pytest.mark.parametrize("name", MODULES)
def test_examples_are_true(name):
    assert doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS).failed == 0
