"""docs/paper-run.md and the notes of `experiments/paper` say the same, and only what the sources say."""

from __future__ import annotations

import re

import pytest

from benchmark.evidence.literature import FOOTINGS
from benchmark.evidence.published import PUBLISHED
from benchmark.evidence.tables import MINUS, MISSING
from benchmark.experiment.settings import load
from benchmark.experiment.workspace import ROOT
from pgd.methods.base import method_class

PARAMS = load(ROOT / "experiments" / "paper" / "params.yaml")
PAGE = (ROOT / "docs" / "paper-run.md").read_text(encoding="utf-8")
DETECTORS = {"autoassign": "AutoAssign", "retinanet": "RetinaNet", "crowd": "CrowdHuman"}
NOTE = re.compile(r"published: ((?:MR [\d.]+, AP [\d.]+, JI )?[\d.]+)(?: (.+))?")
#: with a figure of their own; others are of a teacher that nobody has published
TEACHERS = PARAMS.pairs.keys() - {"gfl-r50", "gfl-r152"}


def rows(head: str) -> list[list[str]]:
    """The table of the page whose first cells are these."""
    lines = PAGE[PAGE.index(f"| {head} |") :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("| ").split("|")] for line in lines]


EXPECTED = {row[0]: row for row in rows("run | published")}


def detector_of(pair: str) -> str:
    first = pair.split("-")[0]
    return DETECTORS.get(first, first.upper())


def own_figures(detector: str) -> list[str]:
    """Teacher, student and PGD in the README of PGD's release."""
    if detector == "CrowdHuman":
        (table,) = (one for one in PUBLISHED if one.metric == "crowdhuman")
        return ["MR {}, AP {}, JI {}".format(*row[1:4]) for row in table.rows]
    return next(list(row[1:4]) for row in PUBLISHED[0].rows if row[0] == detector)


def test_the_page_has_what_the_notes_have():
    noted = {name: run for name, run in PARAMS.runs.items() if run.note}
    assert EXPECTED.keys() == noted.keys() | {f"teacher-{pair}" for pair in TEACHERS}
    for name, run in noted.items():
        figure, remark = NOTE.fullmatch(run.note).groups()
        assert EXPECTED[name][1] == figure
        assert not remark or EXPECTED[name][4] == remark


@pytest.mark.parametrize("name", EXPECTED)
def test_a_row_is_in_its_source(name):
    _, figure, tolerance, ours, remark, source = EXPECTED[name]
    run, pair = PARAMS.runs.get(name), PARAMS.runs[name].pair if name in PARAMS.runs else name.removeprefix("teacher-")
    detector = detector_of(pair)
    footings = [footing for footing in FOOTINGS if footing.detector == detector]
    if run is None or run.method in ("none", "pgd", "pgd_released"):
        known = [footing.plain for footing in footings] + [f.teacher for one in footings for f in one.figures]
        if pair not in ("gfl-2x", "retinanet"):
            teacher, student, taught = own_figures(detector)
            method = "student" if run is None and pair == "gfl-self" else run.method if run else "teacher"
            known = [{"teacher": teacher, "none": student, "student": student}.get(method, taught)]
    else:
        title = method_class(run.method).title
        known = [f.distilled for footing in footings for f in footing.figures if f.method == title]
    assert figure in known
    # nobody has run it
    assert ours == MISSING
    assert source
    assert tolerance == {"": "±0.6", "R101 (2x) as teacher": f"{MINUS}0.6"}.get(remark, MISSING)


def test_the_page_has_every_training():
    listed = [row[0] for row in rows("run | M parameters")]
    assert listed == [*(job.label for job in PARAMS.jobs), f"all {len(PARAMS.jobs)}"]
    hours, parts = rows("run | M parameters")[-1][7], rows("part | teachers")
    assert f"**{hours.split('.')[0]} GPU hours" in PAGE
    assert f"{len(PARAMS.pairs)} teachers and {len(PARAMS.runs)}" in PAGE.replace("\n", " ")
    teachers, students, each = (sum(int(row[place] or 0) for row in parts) for place in (1, 2, 3))
    assert (teachers, students) == (len(PARAMS.pairs), len(PARAMS.runs))
    assert each == pytest.approx(float(hours.replace(",", "")), abs=len(parts) / 2)
