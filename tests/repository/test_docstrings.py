"""The examples in docstrings run, and the functions that a user may import have one."""

import doctest
import importlib

import pytest

from core.files import ROOT

MODULES = sorted(
    ".".join(p.relative_to(ROOT).with_suffix("").parts)
    for p in (ROOT / "core").rglob("*.py")
    if ">>>" in p.read_text()
)


@pytest.mark.parametrize("module", MODULES)
def test_the_examples_of_a_module_run(module):
    result = doctest.testmod(importlib.import_module(module), optionflags=doctest.ELLIPSIS)
    assert result.attempted
    assert result.failed == 0


def test_thirty_functions_have_an_example():
    finder, named = doctest.DocTestFinder(exclude_empty=True), set()
    for module in MODULES:
        loaded = importlib.import_module(module)
        named |= {test.name for test in finder.find(loaded) if test.examples}
    assert len(named) >= 30, sorted(named)
