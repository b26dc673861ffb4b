"""Records of somebody else, on a made-up tree: what is taken in and what is told about each thing that is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import pytest
from support.report_tree import record, write_json, write_params, write_run

from benchmark.experiment.config import DatasetInfo
from benchmark.experiment.settings import load
from benchmark.experiment.workspace import Workspace
from benchmark.submit import SubmitError, checks, curve_fault, take_in
from pgd.evaluation.coco import coco_box_metrics

PLAN = {"config": "abcd", "data": "d" * 64, "code": {"pgd.a": "1"}, "libraries": {"torch": "2.14"}}


def detections() -> list[dict]:
    """One of two objects is found."""
    return [{"image_id": 1, "category_id": 1, "bbox": [4, 4, 20, 20], "score": 0.9}]


def truth() -> dict:
    boxes = [
        {"id": i, "image_id": i, "category_id": 1, "bbox": [4, 4, 20, 20], "area": 400, "iscrowd": 0} for i in (1, 2)
    ]
    images = [{"id": i, "file_name": f"{i}.jpg", "width": 40, "height": 40} for i in (1, 2)]
    return {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "thing"}]}


@pytest.fixture
def ours(tmp_path) -> Workspace:
    """Our experiment, prepared and planned: a teacher and a run."""
    root = tmp_path / "ours"
    root.mkdir()
    write_params(root, ["gfl"], ["plain"], 1, "minicoco")
    space = Workspace(root)
    write_json(root / "val.json", truth())
    paths = dict.fromkeys(("train_images", "train_annotations", "val_images"), "x")
    data = DatasetInfo("minicoco", ["thing"], **paths, val_annotations="val.json", areas=[100, 300], digest="d")
    write_json(space.dataset("minicoco"), asdict(data))
    for name in ("plain", "teacher-gfl"):
        write_json(space.plan("gfl") / f"{name}.json", PLAN)
    return space


@pytest.fixture
def theirs(tmp_path, ours) -> Path:
    """Their folder: one record, whose figures are those of its detections."""
    root = tmp_path / "theirs"
    found = coco_box_metrics(ours.root / "val.json", detections(), areas=(100, 300))
    accuracy = {name: None if value != value else round(value, 3) for name, value in found.items()}
    content = record("plain", 0, "none", "none", 1.0) | {"accuracy": accuracy, "iterations": 100}
    write_run(root, content)
    write_json(root / "work" / "evaluate" / "plain-0" / "detections.json", detections())
    write_json(root / "work" / "plan" / "gfl" / "plain.json", PLAN)
    return root


def test_good_records_are_taken_in(ours, theirs, capsys):
    out = take_in(theirs, "ann", load(ours.params), ours)
    assert out == ours.results / "others" / "ann"
    assert (out / "runs" / "plain-0.json").read_bytes() == (theirs / "results" / "runs" / "plain-0.json").read_bytes()
    assert sorted(p.name for p in out.rglob("*") if p.is_file()) == ["checks.json", "plain-0.csv", "plain-0.json"]
    said = capsys.readouterr().out.splitlines()
    assert [line[:4] for line in said] == ["ok  "] * 5
    assert said[0] == "ok   plain-0: record of version 2"
    assert said[2] == "ok   plain-0: libraries: ours"
    assert said[4].startswith("ok   plain-0: AP 50.")
    with pytest.raises(SubmitError, match="there already; choose another --who"):
        take_in(theirs, "ann", load(ours.params), ours)


def edited(part: str, change: Callable[[dict], None]) -> Callable[[Path], None]:
    def spoil(root: Path) -> None:
        path = root / part
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return spoil


def linked(root: Path) -> None:
    path = root / "results" / "curves" / "plain-0.csv"
    path.rename(root.parent / "elsewhere.csv")
    path.symlink_to(root.parent / "elsewhere.csv")


RUN, FOUND = "results/runs/plain-0.json", "work/evaluate/plain-0/detections.json"
WRONG: dict[str, tuple[Callable[[Path], None], str]] = {
    "version": (edited(RUN, lambda c: c.update(version=1)), "record: .* is no record of version 2"),
    "no JSON": (lambda root: (root / RUN).write_text("{"), "record: .* cannot be read"),
    "config": (
        edited(RUN, lambda c: c.update(config_digest="efgh")),
        "config, code and data: config efgh, planned is abcd",
    ),
    "seed": (edited(RUN, lambda c: c.update(seed=3)), "record: .* holds another record, plain-3"),
    "data": (
        edited("work/plan/gfl/plain.json", lambda c: c.update(data="e" * 64)),
        "config, code and data: data eeeeeeeeeeee, ours",
    ),
    "code": (
        edited("work/plan/gfl/plain.json", lambda c: c.update(code={"pgd.a": "2", "pgd.b": "1"})),
        r"config, code and data: other code in 2 of 1 modules \(first: pgd.a\)",
    ),
    "no plan": (
        lambda root: (root / "work/plan/gfl/plain.json").unlink(),
        "config, code and data: .*plain.json is missing",
    ),
    "longer": (edited(RUN, lambda c: c.update(iterations=200)), r"10 of 20 steps have no loss \(first: 110\)"),
    "no curve": (lambda root: (root / "results/curves/plain-0.csv").unlink(), "curve of 100 steps: FileNotFoundError"),
    "a link": (linked, "curve of 100 steps: .* is a link out of the folder"),
    "AP": (edited(RUN, lambda c: c["accuracy"].update(AP=60.0)), "AP 60.00 from its detections: AP is 50.* says 60.0"),
    "AP75": (edited(RUN, lambda c: c["accuracy"].update(AP75=None)), "AP75 is 50.* says None"),
    "no detections": (lambda root: (root / FOUND).unlink(), "from its detections: .* is missing"),
    "other images": (
        lambda root: write_json(root / FOUND, [{**detections()[0], "image_id": 9}]),
        "on image 9, which is not one",
    ),
    "no list": (lambda root: write_json(root / FOUND, {"a": 1}), "is no list of detections"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_told_and_nothing_is_copied(ours, theirs, capsys, case):
    spoil, said = WRONG[case]
    spoil(theirs)
    with pytest.raises(SubmitError, match=r"1 of \d checks failed; nothing was copied"):
        take_in(theirs, "ann", load(ours.params), ours)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("FAIL")]
    assert pd.Series([line]).str.contains(said).all(), line
    assert not ours.results.exists()


def test_a_run_that_nobody_asked_for(ours, theirs):
    write_run(theirs, record("more", 0, "none", "none", 1.0))
    faults = [check for check in checks(theirs, load(ours.params), ours) if check.fault]
    assert [str(check) for check in faults] == [
        "FAIL more-0: params.yaml: asks for no such training; there are: teacher-gfl, plain-0"
    ]


def test_an_empty_folder(ours, tmp_path):
    with pytest.raises(SubmitError, match="no records there; give the folder of an experiment"):
        list(checks(tmp_path / "nothing", load(ours.params), ours))


def test_curves():
    whole = pd.DataFrame({"step": [10, 20, 25, 25], "loss": [3.0, 2.0, 1.0, None], "AP": [None, None, None, 9.0]})
    assert curve_fault(whole, 25) is None
    assert curve_fault(whole.iloc[1:], 25) == "1 of 3 steps have no loss (first: 10)"
    assert curve_fault(whole.iloc[:3], 25) == "no AP after the last step, 25"
    assert curve_fault(pd.concat([whole, whole.iloc[:1]]), 25) == "steps stand twice"
    assert curve_fault(whole.replace(2.0, float("inf")), 25) == "losses that are not finite"
    assert curve_fault(pd.DataFrame({"step": [0]}), 0) is None, "of a teacher that was given"
