"""Where mmdet's CrowdHumanMetric agrees with ours and where not, and the comparison of their speed."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from mmdet.evaluation.metrics import crowdhuman_metric as mmdet_module
from support.crowd_scenes import EXPECTED, PERSON, TRUTH, Files, measured, released_detections, samples

from pgd.evaluation import crowdhuman


class InPlace:
    """multiprocessing.Process in this process; counts its starts."""

    starts = 0

    def __init__(self, target, args) -> None:
        self.target, self.args = target, args

    def start(self) -> None:
        InPlace.starts += 1
        self.target(*self.args)

    def join(self) -> None:
        pass


@pytest.fixture
def mmdet(monkeypatch):
    """mmdet's metric of some detections: mAP, mMR, JI."""
    monkeypatch.setattr(mmdet_module, "Process", InPlace)
    monkeypatch.setattr(InPlace, "starts", 0)

    def run(detections: list[dict], figures: tuple[str, ...] = ("AP", "MR", "JI"), path: Path = TRUTH) -> list[float]:
        metric = mmdet_module.CrowdHumanMetric(str(path), metric=list(figures))
        return list(measured(metric, samples(detections)).values())

    return run


def by_score(detections: list[dict]) -> list[dict]:
    return [{**d, "boxes": sorted(d["boxes"], key=lambda box: -box[4])} for d in detections]


@pytest.mark.slow
def test_mmdet_agrees_but_for_ji(mmdet):
    """Its largest number of pairs leaves open which of two duplicates is unmatched and maybe ignored; the largest IoU
    does not."""
    found = released_detections()
    ap, mr, ji = mmdet(found)
    assert InPlace.starts == 100
    assert (ap, mr) == pytest.approx((EXPECTED["AP"], EXPECTED["MR"]), abs=5.1e-5)
    assert ji == 0.4745
    assert EXPECTED["JI"] == pytest.approx(0.47375, abs=1e-5)
    assert mmdet(by_score(found), ("JI",)) == pytest.approx([EXPECTED["JI"]], abs=5.1e-5)
    assert crowdhuman.evaluate(TRUTH, by_score(found)) == crowdhuman.evaluate(TRUTH, found)


def test_mmdet_pairs_by_place(mmdet):
    found = released_detections()
    few = crowdhuman.evaluate(TRUTH, found[:10], subset=True)
    assert mmdet(found[:10], ("AP",)) == pytest.approx([few["AP"]], abs=5.1e-5), (
        "the rest of the file left out silently"
    )
    stranger = {"ID": "nobody", "width": 99, "height": 99, "boxes": [[1, 1, 9, 9, 0.9]]}
    assert mmdet([*found, stranger], ("AP",)) == pytest.approx([EXPECTED["AP"]], abs=5.1e-5)
    with pytest.raises(AssertionError, match="shuffle"):
        mmdet(found[::-1], ("AP",))


@pytest.mark.filterwarnings("ignore:Mean of empty slice", "ignore:invalid value")
def test_mmdet_without_detections(mmdet):
    assert math.isnan(mmdet([{**d, "boxes": []} for d in released_detections()], ("MR",))[0])


@pytest.mark.parametrize(
    "truth, found, ours, theirs",
    [
        ([([10, 10, 20, 40], PERSON), ([50, 50, 0, 10], PERSON)], [10, 10, 20, 40], 1, 0.5),
        ([([10, 10, 20, 40], PERSON)], [10, 10, 20, 20], 0, 1),
    ],
    ids=["person without a width", "IoU of one half"],
)
def test_mmdet_counts_other_boxes_in_ji(mmdet, tmp_path, truth, found, ours, theirs):
    scene = Files(tmp_path, [{"size": (100, 100), "truth": truth, "found": [(found, 0.95)]}])
    assert scene.evaluate()["JI"] == pytest.approx(ours, abs=1.1e-6)
    assert mmdet(scene.detections, ("JI",), scene.path) == pytest.approx([theirs])


def test_mmdet_and_a_perfect_detector(mmdet, tmp_path):
    """Like the released code, it gives the first detection no area."""
    boxes = [[10, 10, 20, 40], [40, 10, 20, 40], [70, 10, 20, 40]]
    image = {"size": (100, 100), "truth": [(b, PERSON) for b in boxes], "found": [(b, 0.95) for b in boxes]}
    scene = Files(tmp_path, [image])
    assert scene.evaluate()["AP"] == pytest.approx(2 / 3)
    assert mmdet(scene.detections, ("AP",), scene.path) == pytest.approx([2 / 3], abs=5.1e-5)


@pytest.mark.slow
def test_speed_comparison(mmdet, tmp_path, monkeypatch):
    from tools import speed_crowdhuman as speed

    records, found = speed.crowd(images=12, detections=500, seed=3)
    assert len(records) == len(found) == 12
    assert sum(len(s["pred_instances"]["scores"]) for s in found) == 500
    path = tmp_path / "crowd.odgt"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    figures = speed.compare(str(path), found)
    assert all(0.1 < value < 0.99 for own in figures.values() for value in own.values())
    assert figures["mmdet"] == figures["mmdet, one process"]
    times = speed.measure(str(path), found, repeats=2)
    assert times.keys() == speed.VARIANTS.keys()
    assert all(len(t) == 2 and min(t) > 0 for t in times.values())
    monkeypatch.setattr(crowdhuman, "OVERLAP", 0.6)
    with pytest.raises(speed.Disagreement, match="library: AP"):
        speed.compare(str(path), found)
