"""Random scenes that attack the evaluators, and what each of them must agree with.

A check takes a scene, asserts, and returns what it compared: how many figures, and their largest difference. What a
scene is like (how many images and detections, how many different scores, how coarse the grid of its boxes is) is drawn
by hypothesis, which makes a scene that fails small; its boxes follow from its seed.
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
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from benchmark.evidence import stats
from pgd.evaluation import crowdhuman
from pgd.evaluation.coco import COCO_AREAS, FIGURES, CocoBoxes, coco_box_metrics
from pgd.evaluation.matching import evaluated, figures
from pgd.evaluation.odgt import read_odgt
from support.crowd_scenes import MASK, PERSON, REGION, entry, plain
from support.oracles import crowdhuman as oracle

#: pixels
WIDTH, HEIGHT = 96, 64
#: how many detections there are in a scene, from none over COCO's limit of an image to far more
COUNTS = (0, 1, 2, 5, 20, 60, 100, 101, 300)
#: of how many values scores are, of five decimals at most, as the metric rounds them; with few of them most are equal
LEVELS = (1, 2, 5, 50, 100_000)
#: boxes lie on this grid, pixels: on a coarse one many overlaps are equal, and many boxes
GRIDS = (8.0, 1.0, 0.001)
#: what may differ by rounding alone, percent
CLOSE = 1e-9


def _boxes(rng: np.random.Generator, count: int, near: np.ndarray, grid: float, spread: float = 0.15) -> np.ndarray:
    """[count, 4] ``x, y, w, h`` on a grid: most near one of some boxes, some anywhere, some without area."""
    boxes = np.concatenate((rng.uniform(-10, 0.9 * WIDTH, (count, 2)), rng.uniform(0, 50, (count, 2))), axis=1)
    if len(near) and count:
        theirs = near[rng.integers(len(near), size=count)]
        moved = theirs + rng.normal(0, spread, (count, 4)) * np.tile(theirs[:, 2:], 2)
        # the very same box, too
        moved = np.where(rng.random((count, 1)) < 0.2, theirs, moved)
        boxes = np.where(rng.random((count, 1)) < 0.8, moved, boxes)
    boxes[:, 2:] = np.abs(boxes[:, 2:])
    boxes[rng.random(count) < 0.04, rng.integers(2, 4)] = 0
    return (np.rint(boxes / grid) * grid).round(3)


def _scores(rng: np.random.Generator, count: int, levels: int, distinct: bool) -> np.ndarray:
    """[count] in (0, 1] of so many values; ``distinct`` ones of five decimals."""
    if distinct:
        return (rng.permutation(99_999)[:count] + 1) / 100_000
    return (rng.integers(levels, size=count) + 1) / levels


def coco_scene(
    seed: int,
    images: int,
    categories: int,
    objects: int,
    detections: int,
    levels: int,
    grid: float,
    first_id: int,
    crowds: float,
    distinct: bool = False,
) -> tuple[dict, list[dict]]:
    """Annotations, in COCO's form, and detections.

    Args:
        seed: of all that is random.
        images: how many; about a third hold nothing.
        categories: how many, in an order that is not their ids'; some have no objects or no detections.
        objects: at most, in an image.
        detections: in all; about half of them lie in one image.
        levels: of how many values scores are.
        grid: of boxes, pixels.
        first_id: of annotations.
        crowds: share of objects that are regions to ignore.
        distinct: no score twice in an image.
    """
    rng = np.random.default_rng(seed)
    ids = sorted((rng.permutation(50)[:images] + 1).tolist())
    kinds = (rng.permutation(90)[:categories] + 1).tolist()
    annotations, truth = [], {}
    for image in ids:
        count = int(rng.integers(0, objects + 1)) if rng.random() < 0.7 else 0
        truth[image] = own = _boxes(rng, count, np.empty((0, 4)), grid)
        for box in own.tolist():
            area = box[2] * box[3] * rng.choice([1, 1, 0.7])
            one = {"id": first_id + len(annotations), "image_id": image, "category_id": int(rng.choice(kinds))}
            annotations.append({**one, "bbox": box, "area": area, "iscrowd": int(rng.random() < crowds)})
    places = rng.choice(ids, detections)
    places[rng.random(detections) < 0.5] = rng.choice(ids)
    found = []
    for image in ids:
        count = int((places == image).sum())
        boxes, scores = _boxes(rng, count, truth[image], grid), _scores(rng, count, levels, distinct)
        for box, score in zip(boxes.tolist(), scores.tolist(), strict=True):
            found.append({"image_id": image, "category_id": int(rng.choice(kinds)), "bbox": box, "score": score})
    content = {
        "images": [{"id": i, "width": WIDTH, "height": HEIGHT, "file_name": f"{i}.png"} for i in ids],
        "annotations": annotations,
        "categories": [{"id": k, "name": f"class {k}"} for k in kinds],
    }
    return content, found


def crowd_scene(
    seed: int, images: int, objects: int, detections: int, levels: int, grid: float, distinct: bool = False
) -> list[dict]:
    """Images of CrowdHuman: persons, regions to ignore, detections; see :func:`coco_scene`."""
    rng = np.random.default_rng(seed)
    share = np.bincount(rng.integers(images, size=detections), minlength=images)
    scenes = []
    for count in share.tolist():
        near = _boxes(rng, int(rng.integers(0, objects + 1)), np.empty((0, 4)), grid)
        # persons stand before persons
        own = np.concatenate((near, _boxes(rng, len(near) // 2, near, grid)))[:objects]
        kinds = [(PERSON, PERSON, PERSON, REGION, MASK)[k] for k in rng.integers(5, size=len(own))]
        found = zip(_boxes(rng, count, own, grid).tolist(), _scores(rng, count, levels, distinct), strict=True)
        found = [(box, float(score)) for box, score in found]
        scenes.append({"size": (WIDTH, HEIGHT), "truth": list(zip(own.tolist(), kinds, strict=True)), "found": found})
    return scenes


_SHAPE = {
    "seed": st.integers(0, 2**32 - 1),
    "images": st.integers(1, 6),
    "objects": st.integers(0, 9),
    "detections": st.sampled_from(COUNTS),
    "levels": st.sampled_from(LEVELS),
    "grid": st.sampled_from(GRIDS),
}
_COCO = {
    **_SHAPE,
    "categories": st.integers(1, 4),
    "first_id": st.sampled_from([0, 1, 7000]),
    "crowds": st.sampled_from([0, 0.2, 1]),
}
COCO_SCENES = st.builds(coco_scene, **_COCO)
CROWDS = st.builds(crowd_scene, **_SHAPE)
#: few detections with fine boxes: all matchings can be tried, and no two of them weigh the same
FEW = st.builds(
    crowd_scene,
    **{**_SHAPE, "objects": st.integers(0, 5), "detections": st.integers(0, 14), "grid": st.just(0.001)},
)
# copies of an image come one after the other: where two detections of an image are equal, their order is another
RESAMPLED = st.builds(coco_scene, **_COCO, distinct=st.just(True))
RESAMPLED_CROWDS = st.builds(crowd_scene, **_SHAPE, distinct=st.just(True))

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


def contents(scene: tuple[dict, list[dict]] | list[dict]) -> dict[str, int]:
    """What there is in a scene of either kind, to be counted."""
    if isinstance(scene, tuple):
        content, found = scene
        images, truth = len(content["images"]), content["annotations"]
        ignored = sum(one["iscrowd"] for one in truth)
        scores = [(one["image_id"], one["category_id"], one["score"]) for one in found]
    else:
        images, truth = len(scene), [kind for image in scene for _, kind in image["truth"]]
        ignored = sum(kind is not PERSON for kind in truth)
        scores = [(number, score) for number, image in enumerate(scene) for _, score in image["found"]]
    return {
        "images": images,
        "objects": len(truth) - ignored,
        "regions to ignore": ignored,
        "detections": len(scores),
        "ties": len(scores) - len(set(scores)),
    }


#: what is attacked: check and scenes
ATTACKS = {
    "COCO's figures by both libraries": (libraries, COCO_SCENES),
    "COCO's figures by the metric": (metric, COCO_SCENES),
    "COCO's AP on resamples": (bootstrap, RESAMPLED),
    "CrowdHuman's AP and MR": (crowd_metric, CROWDS),
    "CrowdHuman's JI": (crowd_jaccard, FEW),
    "CrowdHuman's AP and MR on resamples": (crowd_bootstrap, RESAMPLED_CROWDS),
}
