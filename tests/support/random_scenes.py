"""Random scenes that attack the evaluators.

What a scene is like (how many images and detections, how many different scores, how coarse the grid of its boxes is) is
drawn by hypothesis, which makes a scene that fails small; its boxes follow from its seed.
"""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from support.crowd_scenes import MASK, PERSON, REGION

#: pixels
WIDTH, HEIGHT = 96, 64
#: how many detections there are in a scene, from none over COCO's limit of an image to far more
COUNTS = (0, 1, 2, 5, 20, 60, 100, 101, 300)
#: of how many values scores are, of five decimals at most, as the metric rounds them; with few of them most are equal
LEVELS = (1, 2, 5, 50, 100_000)
#: boxes lie on this grid, pixels: on a coarse one many overlaps are equal, and many boxes
GRIDS = (8.0, 1.0, 0.001)


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
