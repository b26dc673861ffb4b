"""docs/published.md: current, complete in its sources, and gains against the right student."""

from __future__ import annotations

import re

import pytest

from benchmark.evidence.literature import FOOTINGS, TAIL, fair, gain, page
from benchmark.evidence.published import RIVALS
from benchmark.experiment.workspace import ROOT
from pgd.methods import METHODS

FIGURES = [(footing, figure) for footing in FOOTINGS for figure in footing.figures]


def test_the_page_is_that_of_the_data():
    assert (ROOT / "docs" / "published.md").read_text(encoding="utf-8") == page(), "run `python -m benchmark.methods`"


@pytest.mark.parametrize(("footing", "figure"), FIGURES, ids=lambda x: getattr(x, "name", getattr(x, "method", "")))
def test_a_figure_has_a_source_and_one_digit(footing, figure):
    assert figure.source
    numbers = [figure.distilled, figure.printed, *filter(None, (figure.teacher, footing.plain))]
    assert all(re.fullmatch(r"[34]\d\.\d", number) for number in numbers)


@pytest.mark.parametrize("footing", FOOTINGS, ids=lambda footing: footing.name)
def test_a_plain_student_has_a_source(footing):
    assert bool(footing.plain) == bool(footing.plain_source)


@pytest.mark.parametrize("name", [name for name in METHODS.module_dict if not name.startswith("pgd")])
def test_every_rival_has_a_figure_or_a_reason(name):
    title = METHODS.get(name).title
    assert title in {figure.method.split(" + ")[0] for _, figure in FIGURES} or title in TAIL


def test_a_method_stands_once_on_a_footing():
    names = [(footing.name, figure.method) for footing, figure in FIGURES]
    assert len(names) == len(set(names))


def test_the_improved_head_is_compared_with_itself():
    footing = next(f for f in FOOTINGS if f.name == "FCOS, improved head, 2x, multi-scale")
    found = {f.method: (gain(f, footing), fair(f, footing)) for f in footing.figures}
    assert found["MasKD"] == ("+2.0", False)
    assert found["CSKD"] == ("+1.1", True)


def test_multi_scale_gfl_is_compared_with_itself():
    footing = next(f for f in FOOTINGS if f.name == "GFL, 2x, multi-scale")
    found = {f.method: (gain(f, footing), fair(f, footing)) for f in footing.figures}
    assert found == {"DetKDS": ("+0.8", False), "CSKD": ("+1.6", False), "FRS": ("+1.8", True)}


def test_without_a_plain_student_there_is_no_gain():
    footing = next(f for f in FOOTINGS if not f.plain)
    assert {gain(figure, footing) for figure in footing.figures} == {"\u2013"}


def test_a_print_of_another_student_is_bold():
    lines = [line for line in page().splitlines() if line.startswith("| DetKDS | 43.7")]
    assert lines[0].split(" | ")[2:4] == ["+0.8", "**40.2**"]


def test_one_scale_is_not_compared_with_several():
    footing = next(f for f in FOOTINGS if f.name == "FCOS, improved head, 2x, one scale")
    assert [(f.method, gain(f, footing)) for f in footing.figures] == [("CanKD", "\u2013")]


def test_the_report_has_gains_over_the_right_student():
    """FGD's on FCOS is printed as 4.2, over a student with another head."""
    assert ("FGD", "40.9", "42.7", "+1.8") in {(row[1], *row[4:]) for row in RIVALS}
    assert {row[1] for row in RIVALS} >= {"LD", "CrossKD", "DetKDS", "CSKD", "MasKD", "CanKD", "PCKA"}
