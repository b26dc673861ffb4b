"""Intervals by hand, and the bootstrap against evaluations of really resampled sets."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import numpy as np
import pytest
from support.golden import GOLDEN

from benchmark.evidence import stats
from pgd.evaluation import crowdhuman
from pgd.evaluation.coco import coco_box_metrics
from pgd.evaluation.odgt import read_odgt

IMAGES = 12
CROWD = GOLDEN / "crowdhuman"


def test_spread_over_seeds_by_hand():
    assert stats.mean_sd([1.0, 3.0]) == pytest.approx((2, math.sqrt(2)))
    assert stats.mean_sd([5.0])[0] == 5
    assert math.isnan(stats.mean_sd([5.0])[1])
    assert math.isnan(stats.mean_sd([])[0])
    # t of the textbooks: 12.706 with one degree of freedom, 4.303 with two
    assert stats.t_interval([3.0, 5.0]) == pytest.approx((4 - 12.706, 4 + 12.706), abs=1e-3)
    assert stats.t_interval([1.0, 2.0, 3.0]) == pytest.approx(
        (2 - 4.303 / math.sqrt(3), 2 + 4.303 / math.sqrt(3)), abs=1e-3
    )
    assert all(math.isnan(end) for end in stats.t_interval([1.0]))


def test_draws_are_of_full_size_and_by_seed_alone():
    draws = stats.draw_images(9, 5, seed=3)
    assert draws.shape == (5, 9)
    assert (draws.sum(axis=1) == 9).all()
    assert (draws >= 0).all()
    assert np.array_equal(draws, stats.draw_images(9, 5, seed=3))
    assert not np.array_equal(draws, stats.draw_images(9, 5, seed=4))
    assert np.array_equal(draws[:2], stats.draw_images(9, 2, seed=3)), "more resamples leave the first as they are"
    # each image is drawn once on average, and left out by a share of (1 - 1/n)^n of the resamples
    many = stats.draw_images(20, 4000)
    assert many.mean() == 1
    assert (many == 0).mean() == pytest.approx((1 - 1 / 20) ** 20, abs=0.01)


def test_percentiles():
    assert stats.percentile_interval(np.arange(101.0)) == pytest.approx((2.5, 97.5))
    assert stats.percentile_interval(np.array([np.nan, 4.0])) == (4, 4)
    assert all(math.isnan(end) for end in stats.percentile_interval(np.array([np.nan])))


def scene(seed: int) -> tuple[dict, list[dict]]:
    """Random objects of three categories, one of them rare, some crowds, and detections good, poor and double."""
    rng = np.random.default_rng(seed)
    annotations, found = [], []
    for image in range(1, IMAGES + 1):
        for category in rng.choice(3, size=rng.integers(0, 6), p=(0.6, 0.36, 0.04)) + 1:
            x, y, w, h = (*rng.uniform(0, 60, 2), *rng.uniform(8, 30, 2))
            crowd = int(rng.random() < 0.15)
            number = {"id": len(annotations) + 1, "image_id": image, "category_id": int(category)}
            annotations.append({**number, "bbox": [x, y, w, h], "area": w * h, "iscrowd": crowd})
            for _ in range(rng.integers(0, 4)):
                box = (np.array([x, y, w, h]) + rng.normal(0, 2.5, 4)).tolist()
                found.append({"image_id": image, "category_id": int(category), "bbox": box, "score": rng.random()})
        false = {"image_id": image, "category_id": int(rng.integers(1, 4)), "bbox": [1, 1, 9, 9]}
        found.append({**false, "score": rng.random()})
    images = [{"id": i, "width": 90, "height": 90, "file_name": f"{i}.png"} for i in range(1, IMAGES + 1)]
    categories = [{"id": i, "name": str(i)} for i in (1, 2, 3)]
    return {"images": images, "annotations": annotations, "categories": categories}, found


def resampled(content: dict, found: list[dict], draws: np.ndarray) -> tuple[dict, list[dict]]:
    """The set with each image as often as drawn, copies under ids of their own."""
    images, annotations, detections = [], [], []
    for image, times in zip(content["images"], draws, strict=True):
        for _ in range(times):
            number = len(images) + 1
            images.append({**image, "id": number})
            own = [a for a in content["annotations"] if a["image_id"] == image["id"]]
            for item in own:
                annotations.append({**item, "id": len(annotations) + 1, "image_id": number})
            detections += [{**d, "image_id": number} for d in found if d["image_id"] == image["id"]]
    return {**content, "images": images, "annotations": annotations}, detections


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_bootstrap_is_pycocotools_on_the_resampled_set(seed):
    content, found = scene(seed)
    truth = stats.indexed(content)
    matches = stats.coco_matches(truth, found)
    # the last draw is of one image only and loses categories
    draws = np.concatenate([stats.draw_images(IMAGES, 12, seed), IMAGES * np.eye(1, IMAGES, dtype=int)])
    assert 0 in draws[-1] @ np.stack([category.objects for category in matches]).T
    fast = stats.coco_ap(matches, np.concatenate([np.ones((1, IMAGES), int), draws]))
    slow = [coco_box_metrics(truth, found)["AP"]]
    for draw in draws:
        copy, detections = resampled(content, found, draw)
        slow.append(coco_box_metrics(stats.indexed(copy), detections)["AP"])
    assert fast == pytest.approx(slow, abs=1e-9)


def test_coco_without_detections_and_without_objects():
    content, found = scene(0)
    draws = stats.draw_images(IMAGES, 3)
    assert stats.coco_ap(stats.coco_matches(stats.indexed(content), []), draws).tolist() == [0, 0, 0]
    empty = stats.indexed({**content, "annotations": []})
    assert np.isnan(stats.coco_ap(stats.coco_matches(empty, found), draws)).all()


def test_an_object_may_have_the_id_0():
    """One that was found counts as found, whatever its id."""
    content, _ = scene(0)
    content["annotations"] = [{**a, "id": number, "iscrowd": 0} for number, a in enumerate(content["annotations"])]
    perfect = [{**a, "score": 0.9} for a in content["annotations"]]
    matches = stats.coco_matches(stats.indexed(content), perfect)
    assert all(category.matched.all() for category in matches)


def test_chunks_change_nothing(monkeypatch):
    content, found = scene(1)
    matches, draws = stats.coco_matches(stats.indexed(content), found), stats.draw_images(IMAGES, 30)
    whole = stats.coco_ap(matches, draws)
    monkeypatch.setattr(stats, "CHUNK", 7)
    assert np.array_equal(stats.coco_ap(matches, draws), whole)


def test_a_better_detector_gains_on_every_resample():
    content, found = scene(2)
    truth, draws = stats.indexed(content), stats.draw_images(IMAGES, 50)
    perfect = [{**a, "score": 0.9} for a in content["annotations"] if not a["iscrowd"]]
    best, other = (stats.coco_ap(stats.coco_matches(truth, boxes), draws) for boxes in (perfect, found))
    assert best == pytest.approx(np.full(50, 100.0))
    assert stats.percentile_interval(best - other)[0] > 0


def crowd_truth(lines: list[dict]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    table = {}
    for line in lines:
        boxes = np.array([box["fbox"] for box in line["gtboxes"]], dtype=float).reshape(-1, 4)
        ignored = [box["tag"] != "person" or box.get("extra", {}).get("ignore", 0) != 0 for box in line["gtboxes"]]
        table[line["ID"]] = boxes, np.array(ignored, dtype=bool)
    return table


def test_crowd_bootstrap_is_the_metric_on_the_resampled_set(tmp_path):
    lines = [json.loads(line) for line in (CROWD / "annotation_val.odgt").read_text().splitlines()]
    entries = {entry["ID"]: entry for entry in json.loads((CROWD / "detections.json").read_text())}
    # scores without ties, whose order a copy of an image would change
    rng = np.random.default_rng(0)
    for entry in entries.values():
        entry["boxes"] = [[*box[:4], box[4] + rng.uniform(0, 1e-6)] for box in entry["boxes"]]
    matches = stats.crowd_matches(crowd_truth(lines), list(entries.values()))
    draws = np.concatenate([np.ones((1, len(lines)), int), stats.draw_images(len(lines), 6)])
    expected = []
    for draw in draws:
        copies = [(f"{k}-{line['ID']}", line) for line, n in zip(lines, draw, strict=True) for k in range(n)]
        path = tmp_path / "copies.odgt"
        path.write_text("".join(json.dumps({**line, "ID": name}) + "\n" for name, line in copies))
        found = [{**entries[line["ID"]], "ID": name} for name, line in copies]
        figures = crowdhuman.evaluate(read_odgt(path), found)
        expected.append([100 * figures["AP"], 100 * figures["MR"]])
    assert stats.crowd_ap_mr(matches, draws) == pytest.approx(np.array(expected), abs=1e-9)


def test_crowds_at_the_edge():
    truth = {"a": (np.array([[0, 0, 10, 10.0]]), np.array([False])), "b": (np.zeros((0, 4)), np.zeros(0, bool))}
    nothing = [{"ID": name, "width": 50, "height": 50, "boxes": []} for name in truth]
    figures = stats.crowd_ap_mr(stats.crowd_matches(truth, nothing), np.array([[1, 1], [0, 2]]))
    assert figures[0].tolist() == [0, 100]
    assert np.isnan(figures[1]).all()


@pytest.mark.slow
def test_nothing_of_mmdet_is_loaded():
    code = "import sys, benchmark.report; print([m for m in ('torch', 'mmdet', 'mmengine') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_over_seeds_is_as_wide_as_theory_says():
    """Independent seeds and images: the variance of the mean is that of the seeds by their count plus the images'."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(300):
        differences = 1.0 + rng.normal(0, 2.0, (5, 1)) + rng.normal(0, 0.5, (1, 400))
        found.append(stats.over_seeds(differences, seed=int(rng.integers(1 << 30))).var())
    assert np.mean(found) == pytest.approx(2.0**2 / 5 + 0.5**2, rel=0.1)
    single = rng.normal(size=(1, 9))
    assert stats.over_seeds(single).tolist() == single[0].tolist()


def test_p_values():
    assert stats.two_sided(np.array([1.0, 2.0, 3.0, -1.0])) == 0.5
    assert stats.two_sided(np.ones(200)) == 1 / 200
    assert stats.two_sided(np.zeros(10)) == 1
    # Holm's own order: the smallest by all, the next by one less, none below an earlier one
    assert stats.holm(np.array([0.04, 0.01, 0.03])).tolist() == pytest.approx([0.06, 0.03, 0.06])
    assert stats.holm(np.array([0.6, 0.7])).tolist() == [1, 1]


def test_improvement_and_power():
    assert stats.improvement([1, 2], [1, 1]) == 0.75
    assert stats.improvement([3], [1, 2]) == 1
    # the same resamples for both: of two seeds against one, on three
    assert stats.improvement([[1, 2, 3], [3, 2, 1]], [[2, 2, 2]]) == 0.5
    assert stats.improvement([[1, 2, 3], [3, 3, 3]], [[2, 1, 2]]) == pytest.approx(5 / 6)
    rng = np.random.default_rng(1)
    smallest = stats.smallest_difference(0.4, 0.3, 5)
    seen = smallest + rng.normal(0, 0.4, (20000, 5)).mean(axis=1) + rng.normal(0, 0.3, 20000)
    reach = 1.96 * np.sqrt(0.4**2 / 5 + 0.3**2)
    assert np.mean(np.abs(seen) > reach) == pytest.approx(0.8, abs=0.01)
