"""AP by class on the report page, and where its records come from; figures known by hand."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest
from support.report_tree import build, load, run_report, write_json

from benchmark.evaluate import code_date
from benchmark.evidence import tables
from benchmark.evidence.by_class import by_class
from benchmark.evidence.records import aggregate
from benchmark.experiment.workspace import ROOT
from benchmark.figures.pages import shade


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    build(tmp_path)
    return tmp_path


def give_classes(tree: Path) -> None:
    """Give the records of students AP by class: the method gains 6 and loses 2, and nobody has a vase."""
    for path in (tree / "results" / "runs").glob("*-[01].json"):
        content = json.loads(path.read_text())
        taught = content["method"] != "none"
        content["class_ap"] = {"fish": 20.0 + 6 * taught, "<sun>": 30.0 - 2 * taught, "vase": None}
        write_json(path, content)


@pytest.mark.slow
def test_gains_by_class_are_shown_where_records_have_them(tree):
    run_report(tree)
    assert 'id="classes"' not in (tree / "results" / "report.html").read_text()
    give_classes(tree)
    found = load(tree)
    (one,) = by_class(found, aggregate(found))
    assert (one.baseline, one.plain.to_dict()) == ("inherit", {"fish": 20, "<sun>": 30})
    assert one.gains.to_dict() == {"pgd": {"fish": 6, "<sun>": -2}}
    run_report(tree)
    page = (tree / "results" / "report.html").read_text()
    assert "Over inherit: 2 classes" in page
    assert '>fish</th><td>20.0</td><td style="background: #0072b280">+6.0</td>' in page
    assert '>&lt;sun&gt;</th><td>30.0</td><td style="background: #d55e002b">\u22122.0</td>' in page
    assert "class.fish" not in page, "no place among the settings"


def test_runs_without_ap_by_class_have_no_column(tree):
    give_classes(tree)
    for seed in (0, 1):
        path = tree / "results" / "runs" / f"pgd-{seed}.json"
        write_json(path, json.loads(path.read_text()) | {"class_ap": {}})
    found = load(tree)
    assert by_class(found, aggregate(found)) == []


@pytest.mark.parametrize(
    ("value", "most", "colour"),
    [(3.0, 6.0, "#0072b240"), (-6.0, 6.0, "#d55e0080"), (0.0, 6.0, "transparent"), (math.nan, 6.0, "transparent")],
)
def test_the_colour_of_a_difference_grows_with_it(value, most, colour):
    assert shade(value, most) == colour


@pytest.mark.slow
def test_the_page_says_where_its_records_come_from(tree):
    found = load(tree)
    assert tables.made(found) == "Records: data mini; torch 2.0; on a <fast> one; 14 minutes of training in all."
    dated = found.assign(**{"environment.git_revision": "0123456789ab", "code_date": "2026-01-31"})
    assert "; revision 0123456 (2026-01-31); " in tables.made(dated)
    dated.loc[dated["seed"] == 1, ["environment.git_revision", "code_date"]] = ["ba9876543210", "2026-02-01"]
    assert "; revisions 0123456, ba98765 (2026-01-31 to 2026-02-01); " in tables.made(dated)
    run_report(tree)
    assert "14 minutes of training in all." in (tree / "results" / "report.html").read_text()


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no clone")
def test_the_day_of_the_code_is_that_of_its_commit():
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", code_date("HEAD"))


@pytest.mark.parametrize("revision", [None, "0" * 12])
def test_a_commit_that_git_does_not_know_has_no_day(revision):
    assert code_date(revision) is None
