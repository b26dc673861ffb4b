"""Many sets of detections at once give what pycocotools gives for each."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from torch import Tensor

from benchmark.probe.coco_many import MAX_DETECTIONS, RANGES, ManyCoco
from benchmark.probe.intervals import uncertain
from pgd.evaluation.coco import FIGURES, coco_box_metrics

AREAS = (400.0, 2500.0)
#: category ids do not count from 0, and one category is unknown to the detector's order
CATEGORIES = (3, 7, 8, 20)


def world(seed: int, images: int = 12, first_id: int = 1) -> COCO:
    """Random objects, some of them crowds, some images without any, and no object of the last category."""
    rng = np.random.default_rng(seed)
    annotations = []
    for image_id in range(1, images + 1):
        for _ in range(rng.integers(0, 7)):
            w, h = rng.uniform(5, 70, 2)
            box = [*rng.uniform(0, 60, 2), w, h]
            annotations.append(
                {
                    "id": len(annotations) + first_id,
                    "image_id": image_id,
                    "category_id": int(rng.choice(CATEGORIES[:-1])),
                    "bbox": box,
                    # masks are smaller than their boxes
                    "area": w * h * rng.uniform(0.4, 1),
                    "iscrowd": int(rng.random() < 0.15),
                }
            )
    truth = COCO()
    truth.dataset = {
        "images": [{"id": i} for i in range(1, images + 1)],
        "categories": [{"id": k, "name": str(k)} for k in CATEGORIES],
        "annotations": annotations,
    }
    truth.createIndex()
    return truth


def detections(truth: COCO, image_id: int, rng: np.random.Generator, noise: int) -> Tensor:
    """Objects that moved, twice at times, in boxes of any class, and noise; scores have ties."""
    rows = []
    for a in truth.imgToAnns[image_id]:
        for _ in range(rng.integers(0, 3)):
            x, y, w, h = np.array(a["bbox"]) + rng.normal(0, 0.1, 4) * (a["bbox"][2:] * 2)
            label = CATEGORIES.index(a["category_id"]) if rng.random() < 0.8 else rng.integers(4)
            rows.append([x, y, x + max(w, 1), y + max(h, 1), rng.integers(1, 20) / 20, label])
    for _ in range(rng.integers(0, noise)):
        x, y = rng.uniform(0, 80, 2)
        rows.append([x, y, x + rng.uniform(1, 60), y + rng.uniform(1, 60), rng.random(), rng.integers(4)])
    rng.shuffle(rows)
    return torch.tensor(np.array(rows).reshape(-1, 6), dtype=torch.float32)


def as_results(image_id: int, found: Tensor) -> list[dict]:
    """As :class:`CocoBoxes` writes them."""
    rows = found.double().tolist()
    return [
        {
            "image_id": image_id,
            "category_id": CATEGORIES[int(label)],
            "bbox": [round(v, 3) for v in (x1, y1, x2 - x1, y2 - y1)],
            "score": round(score, 5),
        }
        for x1, y1, x2, y2, score, label in rows
    ]


def most(found: Tensor) -> int:
    """The most detections of one class."""
    return max(torch.bincount(found[:, 5].long()).tolist(), default=0)


def same(found: dict, expected: dict) -> None:
    assert list(found) == list(FIGURES.values())
    assert found == pytest.approx(expected, abs=1e-9, nan_ok=True)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("noise", [8, 600], ids=["few", "more than count"])
def test_figures_are_pycocotools(seed, noise):
    truth, rng, settings = world(seed), np.random.default_rng(seed + 100), 3
    many = ManyCoco(truth, {k: i for i, k in enumerate(CATEGORIES)}, AREAS, settings)
    results = [[] for _ in range(settings)]
    longest = 0
    for image_id in truth.imgs:
        sets = [detections(truth, image_id, rng, noise) for _ in range(settings - 1)]
        # the last shares half of its images with the first
        sets.append(sets[0] if image_id % 2 else sets[0][:3])
        many.add(image_id, sets)
        for k, found in enumerate(sets):
            results[k] += as_results(image_id, found)
            longest = max(longest, most(found))
    assert (longest > MAX_DETECTIONS) == (noise > 100)
    for found, own in zip(many.figures(), results, strict=True):
        expected = coco_box_metrics(truth, own, areas=AREAS)
        assert expected["AP"] > (0.1 if noise > 100 else 3)
        same(found, expected)


def test_resamples_are_evaluations_of_copies():
    """An image that counts twice is two images; one that does not count is not there."""
    truth, rng = world(2), np.random.default_rng(3)
    labels = {k: i for i, k in enumerate(CATEGORIES)}
    images, times = list(truth.imgs), rng.integers(0, 3, (3, len(truth.imgs)))
    sets = [[detections(truth, image_id, rng, 8) for image_id in images] for _ in range(2)]
    for found in sets[0] + sets[1]:
        # of equal scores the order would matter
        found[:, 4] = torch.from_numpy(rng.random(len(found)))

    def evaluated(copies: np.ndarray) -> ManyCoco:
        many = ManyCoco(truth, labels, AREAS, 2)
        for place, image_id in enumerate(images):
            for _ in range(copies[place]):
                many.add(image_id, [sets[0][place], sets[1][place]])
        return many

    found = evaluated(np.ones(len(images), dtype=int)).resampled(times)
    assert found.shape == (2, len(RANGES), 3)
    for draw, copies in enumerate(times):
        for setting, figures in enumerate(evaluated(copies).figures()):
            assert found[setting, :, draw].tolist() == pytest.approx([figures[name] for name in RANGES], nan_ok=True)


def test_intervals_by_hand():
    """Two rankings of two shares, three resamples: differences are taken resample by resample, and reflected."""
    drawn = np.array([[8.0, 10, 12], [20, 30, 40], [4, 4, 8], [20, 30, 40]])
    figures = [dict.fromkeys(RANGES, ap) for ap in (9.0, 30.0, 5.0, 30.0)]
    rows = uncertain(figures, np.stack([drawn] * len(RANGES), axis=1), (1.0, 100.0))
    assert [row["change"] for row in rows] == [-21, 0, -25, 0]
    assert [row["behind_top"] for row in rows] == [0, 0, 4, 0]
    reach = {name: [rows[2][f"{name}_{bound}"] for bound in ("low", "high")] for name in ("AP", "change", "behind_top")}
    # quantiles: 4 and 7.8 of AP; -31.7 and -16.5 of the change; 4 and 5.9 of 4, 6 and 4
    assert reach["AP"] == pytest.approx([2.2, 6])
    assert reach["change"] == pytest.approx([-33.5, -18.3])
    assert reach["behind_top"] == pytest.approx([2.1, 4])
    assert rows[0]["AP_small_low"] == pytest.approx(18 - 11.9)
    alone = uncertain(figures[:1], drawn[:1, None].repeat(len(RANGES), axis=1), (1.0,))
    assert math.isnan(alone[0]["change"])


def test_no_interval_of_ap_is_below_zero():
    rows = uncertain([dict.fromkeys(RANGES, 1.0)], np.full((1, len(RANGES), 3), 4.0), (100.0,))
    assert (rows[0]["AP_low"], rows[0]["AP_high"]) == (0, 0)


def test_nothing_found_and_nothing_there():
    truth, empty = world(0), torch.zeros(0, 6)
    many = ManyCoco(truth, {k: i for i, k in enumerate(CATEGORIES)}, (1e-3, 2e-3), 1)
    for image_id in truth.imgs:
        many.add(image_id, [empty])
    figures = many.figures()[0]
    same(figures, coco_box_metrics(truth, [], areas=(1e-3, 2e-3)))
    assert figures["AP"] == 0
    assert math.isnan(figures["AP_small"])


def test_an_object_may_have_the_id_0():
    """To pycocotools it would be none: both metrics take what is found exactly for found."""
    truth = world(0, first_id=0)
    assert truth.anns[0]["iscrowd"] == 0
    many, results = ManyCoco(truth, {k: i for i, k in enumerate(CATEGORIES)}, AREAS, 1), []
    for image_id in truth.imgs:
        objects = [a for a in truth.imgToAnns[image_id] if not a["iscrowd"]]
        boxes = [(*a["bbox"][:2], a["bbox"][0] + a["bbox"][2], a["bbox"][1] + a["bbox"][3]) for a in objects]
        rows = [(*box, 0.9, CATEGORIES.index(a["category_id"])) for box, a in zip(boxes, objects, strict=True)]
        found = torch.tensor(rows).reshape(-1, 6)
        many.add(image_id, [found])
        results += as_results(image_id, found)
    (figures,) = many.figures()
    same(figures, coco_box_metrics(truth, results, areas=AREAS))
    assert figures["AP"] == pytest.approx(100)


def test_equal_overlaps_go_to_the_last_object():
    """Objects in the same place, some of them ignored for their area or as crowds."""
    truth = world(0, images=1)
    box = [10.0, 10.0, 20.0, 20.0]
    truth.dataset["annotations"] = [
        {"id": 1 + k, "image_id": 1, "category_id": 3, "bbox": box, "area": area, "iscrowd": crowd}
        for k, (area, crowd) in enumerate([(400.0, 0), (401.0, 0), (390.0, 1), (400.0, 0)])
    ]
    truth.createIndex()
    found = torch.tensor([[10.0, 10, 30, 30, s, 0] for s in (0.9, 0.8, 0.7, 0.7, 0.6)])
    many = ManyCoco(truth, {3: 0, 7: 1, 8: 2, 20: 3}, AREAS, 1)
    many.add(1, [found])
    same(many.figures()[0], coco_box_metrics(truth, as_results(1, found), areas=AREAS))


def test_detections_of_no_category_do_not_count():
    truth, rng = world(1), np.random.default_rng(0)
    many, some = (ManyCoco(truth, {k: i for i, k in enumerate(CATEGORIES)}, AREAS, 1) for _ in range(2))
    for image_id in truth.imgs:
        found = detections(truth, image_id, rng, 5)
        strange = found.clone()
        strange[:, 5] = 4
        some.add(image_id, [found])
        many.add(image_id, [torch.cat((strange, found))])
    assert many.figures() == some.figures()
    assert some.figures()[0]["AP"] > 0
