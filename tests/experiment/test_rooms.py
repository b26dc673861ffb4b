"""Tests stand in rooms that are named as those of the code, and share what is in tests/support."""

from __future__ import annotations

import re

from benchmark.experiment.workspace import ROOT

TESTS = ROOT / "tests"
#: of what has no room of its own in the code: the top of pgd, tests on GPUs, tools, and what is no test
OTHERS = {"core", "cuda", "tools", "support", "golden", "stress"}


def folders(path) -> set[str]:
    """The names of the folders in one."""
    return {one.name for one in path.iterdir() if one.is_dir() and not one.name.startswith((".", "_"))}


def test_rooms_are_named_as_in_the_code():
    rooms = folders(ROOT / "pgd") | folders(ROOT / "benchmark")
    assert folders(TESTS) - OTHERS <= rooms
    # templates and configs are data, which commands read
    assert rooms - folders(TESTS) == {"configs", "templates"}


def test_no_test_stands_outside_of_a_room():
    assert [path.name for path in TESTS.glob("*.py")] == ["conftest.py"]


def test_what_tests_share_is_in_support():
    paths = [path for path in TESTS.rglob("*.py") if re.search(r"^\s*(from|import) test_", path.read_text(), re.M)]
    assert paths == []
