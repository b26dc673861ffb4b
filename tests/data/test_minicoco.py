"""The mini world: drawn again it is the same, boxes are tight, and the pinned archive is what the code draws."""

from __future__ import annotations

import json
import zipfile
from collections import Counter

import cv2
import numpy as np
import pytest

from benchmark.data import minicoco, scene
from benchmark.data.minicoco import MINI, SIZE, annotate, coco_json, file_name, render
from benchmark.data.scene import Instance, Layer, compose
from benchmark.data.sprites import CATEGORIES
from benchmark.prepare import ARCHIVE, MINI_IMAGES

TRAIN, VAL = SPLITS = MINI.splits
MIN_VISIBLE = 0.3


def bounds(mask: np.ndarray) -> tuple[int, int, int, int]:
    """x, y, width, height by looking at every pixel."""
    pixels = [(x, y) for y, row in enumerate(mask.tolist()) for x, on in enumerate(row) if on]
    xs, ys = [x for x, _ in pixels], [y for _, y in pixels]
    return min(xs), min(ys), max(xs) - min(xs) + 1, max(ys) - min(ys) + 1


@pytest.fixture(scope="module")
def drawn() -> list[tuple[np.ndarray, list[Instance]]]:
    return [render(MINI, TRAIN, i) for i in range(16)]


@pytest.fixture(scope="module")
def archive():
    if not ARCHIVE.is_file():
        pytest.skip("data/minicoco.zip is not there; `dvc pull data`")
    with zipfile.ZipFile(ARCHIVE) as content:
        yield content


@pytest.fixture(scope="module")
def pinned(archive) -> dict[str, dict]:
    return {s.name: json.loads(archive.read(f"annotations/{s.name}.json")) for s in SPLITS}


@pytest.mark.slow
def test_an_image_drawn_twice_is_the_same(drawn):
    for index in (0, 3, 11):
        image, instances = render(MINI, TRAIN, index)
        np.testing.assert_array_equal(image, drawn[index][0])
        assert annotate(instances, 1, 1) == annotate(drawn[index][1], 1, 1)
        for a, b in zip(instances, drawn[index][1], strict=True):
            np.testing.assert_array_equal(a.mask, b.mask)


def test_images_and_splits_differ(drawn):
    assert len({image.tobytes() for image, _ in drawn}) == len(drawn)
    assert np.abs(render(MINI, VAL, 0)[0].astype(float) - drawn[0][0]).mean() > 5


def test_images_look_like_images(drawn):
    for image, _ in drawn:
        assert image.shape == (*SIZE, 3)
        assert image.dtype == np.uint8
        assert image.std() > 8


def test_boxes_are_tight(drawn):
    found = 0
    for image_id, (_, instances) in enumerate(drawn, start=1):
        for a, instance in zip(annotate(instances, image_id, 7), instances, strict=True):
            assert tuple(a["bbox"]) == bounds(instance.mask)
            assert a["area"] == int(instance.mask.sum()) <= a["bbox"][2] * a["bbox"][3]
            assert (a["image_id"], a["category_id"]) == (image_id, instance.category_id)
            found += 1
    assert found > 40


def test_no_pixel_has_two_owners(drawn):
    for _, instances in drawn:
        if instances:
            assert np.sum([i.mask for i in instances], axis=0).max() == 1


def test_coco_json_counts_ids_from_one(drawn):
    annotations = [annotate(instances, i + 1, 0) for i, (_, instances) in enumerate(drawn)]
    content = coco_json(MINI, TRAIN, annotations)
    assert [i["id"] for i in content["images"]] == list(range(1, len(drawn) + 1))
    assert content["images"][2]["file_name"] == "train00002.jpg"
    assert [a["id"] for a in content["annotations"]] == list(range(1, sum(map(len, annotations)) + 1))
    assert [c["name"] for c in content["categories"]] == list(CATEGORIES)
    assert len(set(CATEGORIES)) == 10


def square(x: int, y: int, side: int, category: int, value: float) -> Layer:
    return Layer(np.full((side, side, 3), value, np.float32), np.ones((side, side), np.float32), x, y, category)


@pytest.mark.parametrize(("covered", "stays"), [(0, True), (13, True), (14, True), (15, False), (20, False)])
def test_too_hidden_objects_are_left_out(covered, stays):
    """A 20-pixel square of which 14 columns are covered shows exactly 30%."""
    image = np.zeros((60, 60, 3), np.float32)
    below, above = square(5, 5, 20, 1, 100.0), square(25 - covered, 5, 20, 2, 200.0)
    instances = compose(image, [below, above], MIN_VISIBLE)
    assert [i.category_id for i in instances] == ([1, 2] if stays else [2])
    assert instances[-1].mask.sum() == 400
    if stays:
        assert instances[0].mask.sum() == 20 * (20 - covered)
    else:
        # not painted either: an unlabelled rest would be a false label
        assert not (image == 100).any()


@pytest.mark.parametrize(("x", "stays"), [(-13, True), (-14, True), (-15, False), (-30, False)])
def test_too_truncated_objects_are_left_out(x, stays):
    instances = compose(np.zeros((60, 60, 3), np.float32), [square(x, 5, 20, 1, 100.0)], MIN_VISIBLE)
    assert len(instances) == stays
    if stays:
        assert annotate(instances, 1, 1)[0]["bbox"] == [0, 5, 20 + x, 20]


def test_taking_one_away_uncovers_others():
    layers = [square(5, 5, 20, 1, 50.0), square(6, 5, 20, 2, 100.0), square(7, 5, 20, 3, 150.0)]
    instances = compose(np.zeros((60, 60, 3), np.float32), layers, MIN_VISIBLE)
    # the second is hidden by the third, the first by the two others
    assert [i.category_id for i in instances] == [3]
    assert instances[0].mask.sum() == 400


def test_crowd_members_become_one_region():
    members = [square(5 + 6 * i, 5, 8, 4, 90.0) for i in range(5)]
    for member in members:
        member.crowd = True
    instances = compose(np.zeros((60, 60, 3), np.float32), members, MIN_VISIBLE)
    assert [(i.category_id, i.iscrowd) for i in instances] == [(4, True)]
    assert annotate(instances, 3, 9) == [
        {
            "id": 9,
            "image_id": 3,
            "category_id": 4,
            "bbox": [5, 5, 32, 8],
            "area": 32 * 8,
            "iscrowd": 1,
            "segmentation": [],
        }
    ]


@pytest.mark.slow
def test_enough_shows_of_every_object(monkeypatch):
    """In real scenes: what is annotated shows by at least 30% and 12 pixels of its silhouette."""
    seen = []

    def watched(image, layers, min_visible):
        instances = compose(image, layers, min_visible)
        seen.append((layers, instances, min_visible))
        return instances

    monkeypatch.setattr(scene, "compose", watched)
    compared = 0
    for index in range(10):
        render(MINI, VAL, index)
        layers, instances, min_visible = seen[-1]
        assert min_visible == MIN_VISIBLE
        for instance in instances:
            if instance.iscrowd:
                continue
            shown = int(instance.mask.sum())
            assert shown >= 12
            own = [x for x in layers if x.category_id == instance.category_id and not x.crowd]
            assert shown >= MIN_VISIBLE * min(x.full_area for x in own)
            compared += 1
    assert compared > 25


def test_archive_counts(archive, pinned):
    names = Counter(name.split("/")[0] for name in archive.namelist())
    assert names == {"train": 2000, "val": 500, "annotations": 2}
    assert MINI_IMAGES == {"train": 2000, "val": 500} == {s.name: s.images for s in SPLITS}
    for split in SPLITS:
        images = pinned[split.name]["images"]
        assert [i["file_name"] for i in images] == [file_name(split, i) for i in range(split.images)]
        assert {(i["height"], i["width"]) for i in images} == {SIZE}


def test_archive_has_every_kind(pinned):
    for content in pinned.values():
        kinds = Counter(a["category_id"] for a in content["annotations"] if not a["iscrowd"])
        assert sorted(kinds) == list(range(1, len(CATEGORIES) + 1))
        assert [c["name"] for c in content["categories"]] == list(CATEGORIES)
        # drawn evenly, and no category is always hidden
        assert min(kinds.values()) > 0.6 * max(kinds.values())
        assert sum(a["iscrowd"] for a in content["annotations"]) >= 1
        assert len({a["image_id"] for a in content["annotations"]}) < len(content["images"])


def test_archive_sizes(pinned):
    height, width = SIZE
    # an object's length is drawn before it is turned and stretched
    longest = np.sqrt(2) * MINI.lengths[1] * max(SIZE)
    for content in pinned.values():
        own = [a for a in content["annotations"] if not a["iscrowd"]]
        for a in own:
            x, y, w, h = a["bbox"]
            assert x >= 0
            assert y >= 0
            assert x + w <= width
            assert y + h <= height
            assert max(w, h) <= longest
            assert 12 <= a["area"] <= w * h
        sides = np.sqrt([a["area"] for a in own])
        # small, medium and large (benchmark.prepare.MINI_AREAS) all occur often enough to measure
        shares = [np.mean(sides < 17), np.mean((sides >= 17) & (sides < 27)), np.mean(sides >= 27)]
        assert min(shares) > 0.02


@pytest.mark.parametrize(
    ("split", "index"), [(TRAIN, 0), (TRAIN, 777), (TRAIN, 1999), (VAL, 0), (VAL, 123), (VAL, 499)]
)
def test_archive_is_what_the_code_draws(archive, pinned, split, index):
    data, annotations = minicoco._encoded(MINI, split, index)
    kept = [a for a in pinned[split.name]["annotations"] if a["image_id"] == index + 1]
    assert [{**a, "id": 0} for a in kept] == [{**a, "id": 0} for a in annotations]
    ours, theirs = (
        cv2.imdecode(np.frombuffer(d, np.uint8), cv2.IMREAD_COLOR).astype(float)
        for d in (data, archive.read(f"{split.name}/{file_name(split, index)}"))
    )
    assert np.abs(ours - theirs).mean() < 1.5
    # and the file is the image, channels in order, but for what JPEG loses
    assert np.abs(theirs[..., ::-1] - render(MINI, split, index)[0]).mean() < 6
