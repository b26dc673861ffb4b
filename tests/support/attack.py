"""What each evaluator must agree with on random scenes.

A check takes a scene, asserts, and returns what it compared: how many figures, and their largest difference.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import tempfile
from pathlib import Path

import hotcoco
import numpy as np
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from benchmark.evidence import stats
from pgd.evaluation import crowdhuman
from pgd.evaluation.coco import COCO_AREAS, FIGURES, CocoBoxes, coco_box_metrics
from pgd.evaluation.matching import evaluated, figures
from pgd.evaluation.odgt import read_odgt
from support.crowd_scenes import PERSON, entry, plain
from support.oracles import crowdhuman as oracle
from support.random_scenes import COCO_SCENES, CROWDS, FEW, RESAMPLED, RESAMPLED_CROWDS

#: what may differ by rounding alone, percent
CLOSE = 1e-9

Compared = tuple[int, float]


def agree(ours: list[float], theirs: list[float]) -> Compared:
    """Assert that figures are equal up to rounding, NaN where the other is NaN."""
    ours, theirs = np.asarray(ours, dtype=float).ravel(), np.asarray(theirs, dtype=float).ravel()
    assert ours.shape == theirs.shape
    assert np.array_equal(np.isnan(ours), np.isnan(theirs)), f"{ours} and {theirs}"
    difference = np.nanmax(np.abs(ours - theirs), initial=0)
    assert difference < CLOSE, f"{ours} and {theirs}"
    return len(ours), float(difference)


def _by_pycocotools(content: dict, found: list[dict], areas: tuple[float, float]) -> list[float]:
    """Its twelve figures, with none of our code: ids from 1, as it wants them."""
    numbered = [{**one, "id": number} for number, one in enumerate(content["annotations"], start=1)]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = stats.indexed({**content, "annotations": numbered})
        evaluation = COCOeval(truth, truth.loadRes(found) if found else COCO(), "bbox")
        if not found:
            evaluation.params.imgIds, evaluation.params.catIds = truth.getImgIds(), truth.getCatIds()
        low, high = areas
        evaluation.params.areaRng = [[0, 1e10], [0, low], [low, high], [high, 1e10]]
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [float(figure) for figure in evaluation.stats]


def libraries(scene: tuple[dict, list[dict]]) -> Compared:
    """Both libraries that match give pycocotools' figures."""
    content, found = scene
    areas = COCO_AREAS if len(found) % 2 else (100, 500)
    ranges = (0, 1e10), (0, areas[0]), areas, (areas[1], 1e10)
    expected = _by_pycocotools(content, found, areas)
    both = [figures(evaluated(content, found, ranges, library=library)) for library in (hotcoco, None)]
    return agree(both, [expected, expected])


def _samples(content: dict, found: list[dict]) -> list[dict]:
    """Detections as mmdet's data samples, boxes as corners and labels by the order of categories."""
    labels = {category["id"]: label for label, category in enumerate(content["categories"])}
    samples = []
    for image in content["images"]:
        own = [one for one in found if one["image_id"] == image["id"]]
        boxes = torch.tensor([one["bbox"] for one in own], dtype=torch.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        predicted = {
            "bboxes": boxes,
            "scores": torch.tensor([one["score"] for one in own], dtype=torch.float64),
            "labels": torch.tensor([labels[one["category_id"]] for one in own], dtype=torch.long),
        }
        samples.append({"img_id": image["id"], "pred_instances": predicted})
    return samples


def metric(scene: tuple[dict, list[dict]]) -> Compared:
    """What trainings and `evaluate` ask: mmdet's predictions through the metric."""
    content, found = scene
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "annotations.json"
        path.write_text(json.dumps(content))
        own = CocoBoxes(str(path))
    own.dataset_meta = {"classes": tuple(category["name"] for category in content["categories"])}
    samples = _samples(content, found)
    for start in range(0, len(samples), 2):
        own.process({}, samples[start : start + 2])
    ours = own.evaluate(len(samples))
    expected = _by_pycocotools(content, found, COCO_AREAS)
    return agree(
        [ours[name] for name in FIGURES.values()],
        [100 * expected[i] if expected[i] >= 0 else math.nan for i in FIGURES],
    )


def _draws(count: int) -> np.ndarray:
    """[B, I] each image once, some resamples, and one image alone."""
    return np.concatenate([np.ones((1, count), int), stats.draw_images(count, 3), count * np.eye(1, count, dtype=int)])


def bootstrap(scene: tuple[dict, list[dict]]) -> Compared:
    """The bootstrap's AP is that of an evaluation of the resampled set."""
    content, found = scene
    draws = _draws(len(content["images"]))
    ours = stats.coco_ap(stats.coco_matches(stats.indexed(content), found), draws)
    expected = []
    for draw in draws:
        images, annotations, detections = [], [], []
        for image in np.repeat(np.arange(len(draw)), draw):
            own, number = content["images"][image], len(images) + 1
            images.append({**own, "id": number})
            for one in (a for a in content["annotations"] if a["image_id"] == own["id"]):
                annotations.append({**one, "id": len(annotations) + 1, "image_id": number})
            detections += [{**one, "image_id": number} for one in found if one["image_id"] == own["id"]]
        copy = stats.indexed({**content, "images": images, "annotations": annotations})
        expected.append(coco_box_metrics(copy, detections)["AP"])
    return agree(ours, expected)


def _odgt(images: list[dict]) -> tuple[dict, list[dict]]:
    """Scenes as `read_odgt` reads them, and as entries of a detections file."""
    names = [f"{i:03d}" for i in range(len(images))]
    lines = [
        {"ID": name, "gtboxes": [{**kind, "fbox": box} for box, kind in image["truth"]]}
        for name, image in zip(names, images, strict=True)
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "annotation.odgt"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        truths = read_odgt(path)
    return truths, [entry(name, image) for name, image in zip(names, images, strict=True)]


def crowd_metric(images: list[dict]) -> Compared:
    """AP and MR follow the rules one by one."""
    ours, literal = crowdhuman.evaluate(*_odgt(images)), plain(images)
    if not oracle.curve(literal)[1]:
        return agree([ours["AP"], ours["MR"]], [math.nan, math.nan])
    if not any(image["found"] for image in images) or not oracle.curve(literal)[0]:
        return agree([ours["AP"], ours["MR"]], [0, 1])
    return agree([ours["AP"], ours["MR"]], [oracle.average_precision(literal), oracle.miss_rate(literal)])


def crowd_jaccard(images: list[dict]) -> Compared:
    """JI is that of the heaviest matching, found by trying all."""
    truths, entries = _odgt(images)
    expected = [value for value in oracle.jaccard(plain(images)) if not math.isnan(value)]
    return agree([crowdhuman.evaluate(truths, entries)["JI"]], [max(expected, default=math.nan)])


def crowd_bootstrap(images: list[dict]) -> Compared:
    """The bootstrap's AP and MR are those of the resampled set."""
    _, entries = _odgt(images)
    table = {}
    for one, image in zip(entries, images, strict=True):
        boxes = np.array([box for box, _ in image["truth"]], dtype=float).reshape(-1, 4)
        table[one["ID"]] = boxes, np.array([kind is not PERSON for _, kind in image["truth"]], dtype=bool)
    draws = _draws(len(images))
    expected = []
    for draw in draws:
        figures_ = crowdhuman.evaluate(*_odgt([images[i] for i in np.repeat(np.arange(len(draw)), draw)]))
        expected.append([100 * figures_["AP"], 100 * figures_["MR"]])
    return agree(stats.crowd_ap_mr(stats.crowd_matches(table, entries), draws), expected)


#: what is attacked: check and scenes
ATTACKS = {
    "COCO's figures by both libraries": (libraries, COCO_SCENES),
    "COCO's figures by the metric": (metric, COCO_SCENES),
    "COCO's AP on resamples": (bootstrap, RESAMPLED),
    "CrowdHuman's AP and MR": (crowd_metric, CROWDS),
    "CrowdHuman's JI": (crowd_jaccard, FEW),
    "CrowdHuman's AP and MR on resamples": (crowd_bootstrap, RESAMPLED_CROWDS),
}
