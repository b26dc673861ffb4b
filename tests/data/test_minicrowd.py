"""minicrowd: drawn again it is the same, boxes follow from the pixels, the pinned archive is what the code draws."""

from __future__ import annotations

import hashlib
import json
import zipfile

import cv2
import numpy as np
import pytest

from benchmark.data import crowd_scene, minicrowd
from benchmark.data.archive import DATE, Split, new_archive
from benchmark.data.crowd_scene import PERSON, Seen, compose
from benchmark.data.minicrowd import (
    MIN_PIXELS,
    MIN_SHARE,
    OCC_SHARE,
    SIZE,
    SPLITS,
    annotate,
    image_id,
    render,
)
from benchmark.experiment.workspace import ROOT

pytestmark = pytest.mark.slow

TRAIN, VAL = SPLITS
HEIGHT, WIDTH = SIZE
ARCHIVE = ROOT / "data" / "minicrowd.zip"
SAMPLE = [(TRAIN, i) for i in range(0, 800, 40)] + [(VAL, i) for i in range(0, 300, 30)]


@pytest.fixture(scope="module")
def drawn() -> list[tuple[np.ndarray, list[Seen]]]:
    """Thirty images of both splits."""
    return [render(split, i) for split, i in SAMPLE]


@pytest.fixture(scope="module")
def gtboxes(drawn) -> list[list[dict]]:
    return [annotate(seen) for _, seen in drawn]


@pytest.fixture(scope="module")
def archive():
    if not ARCHIVE.is_file():
        pytest.skip("data/minicrowd.zip is not there; `dvc pull data.dvc`")
    with zipfile.ZipFile(ARCHIVE) as content:
        yield content


def persons(boxes: list[dict]) -> list[dict]:
    return [b for b in boxes if b["tag"] == "person" and not b["extra"].get("ignore")]


def overlap(a: list[int], b: list[int]) -> float:
    w = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    h = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    common = max(w, 0) * max(h, 0)
    return common / (a[2] * a[3] + b[2] * b[3] - common)


def close_pairs(boxes: list[dict]) -> int:
    full = [b["fbox"] for b in persons(boxes)]
    return sum(overlap(a, b) > 0.5 for i, a in enumerate(full) for b in full[:i])


def around(mask: np.ndarray, x: int = 0, y: int = 0) -> list[int]:
    """x, y, width, height by looking at every pixel."""
    pixels = [(x + c, y + r) for r, row in enumerate(mask.tolist()) for c, on in enumerate(row) if on]
    xs, ys = [c for c, _ in pixels], [r for _, r in pixels]
    return [min(xs), min(ys), max(xs) - min(xs) + 1, max(ys) - min(ys) + 1]


# ----------------------------------------------------------------------------------------------- real images


@pytest.mark.long
def test_an_image_drawn_twice_is_the_same(drawn):
    for n in (0, 9, 25):
        image, seen = render(*SAMPLE[n])
        np.testing.assert_array_equal(image, drawn[n][0])
        assert annotate(seen) == annotate(drawn[n][1])


def test_images_and_splits_differ(drawn):
    assert len({image.tobytes() for image, _ in drawn}) == len(drawn)
    for image, _ in drawn:
        assert image.shape == (HEIGHT, WIDTH, 3)
        assert image.dtype == np.uint8
        assert image.std() > 8


def test_boxes_lie_where_they_should(gtboxes):
    for boxes in gtboxes:
        for number, box in enumerate(b for b in boxes if b["tag"] == "person"):
            assert set(box) == {"tag", "fbox", "vbox", "hbox", "head_attr", "extra"}
            assert box["extra"]["box_id"] == number
            assert all(type(v) is int for k in ("fbox", "vbox", "hbox") for v in box[k])
            (fx, fy, fw, fh), (vx, vy, vw, vh), (hx, hy, hw, hh) = box["fbox"], box["vbox"], box["hbox"]
            assert min(fw, fh, vw, vh, hw, hh) >= 1
            assert vx >= 0
            assert vy >= 0
            assert vx + vw <= WIDTH
            assert vy + vh <= HEIGHT
            assert vx >= fx
            assert vy >= fy
            assert vx + vw <= fx + fw
            assert vy + vh <= fy + fh
            assert hx >= fx
            assert hy >= fy
            assert hx + hw <= fx + fw
            assert hy + hh <= fy + fh
            # the head is small and sits high, below raised hands at most
            assert hy + hh / 2 < fy + 0.5 * fh
            assert hh <= 0.45 * fh


def test_masks_are_tagged_and_ignored(gtboxes):
    masks = [b for boxes in gtboxes for b in boxes if b["tag"] == "mask"]
    assert len(masks) > 20
    for box in masks:
        assert box["fbox"] == box["vbox"] == box["hbox"]
        assert box["extra"] == {"ignore": 1}
        x, y, w, h = box["vbox"]
        assert x >= 0
        assert y >= 0
        assert x + w <= WIDTH
        assert y + h <= HEIGHT
    assert {b["tag"] for boxes in gtboxes for b in boxes} == {"person", "mask"}


def test_the_sample_is_a_crowd(gtboxes):
    counts = [len(persons(boxes)) for boxes in gtboxes]
    assert 11 <= np.mean(counts) <= 13
    assert min(counts) >= 1
    pairs = [close_pairs(boxes) for boxes in gtboxes]
    # CrowdHuman: 2.4 pairs among 22.6 persons, so 1.3 among 12
    assert 0.9 < np.mean(pairs) < 1.9
    assert np.mean(np.array(pairs) > 0) > 0.5
    heights = np.array([b["fbox"][3] for boxes in gtboxes for b in persons(boxes)])
    assert heights.min() >= 8
    assert heights.max() <= 1.32 * crowd_scene.HEIGHTS[1]
    assert np.mean(heights < 32) > 0.1
    assert np.mean(heights > 64) > 0.2
    assert np.mean(heights > 110) > 0.02
    cut = [b["fbox"][:2] != [max(v, 0) for v in b["fbox"][:2]] for boxes in gtboxes for b in persons(boxes)]
    assert 0.01 < np.mean(cut) < 0.3
    assert 0.4 < np.mean([b["extra"]["occ"] for boxes in gtboxes for b in persons(boxes)]) < 0.85


def test_what_shows_is_what_was_painted(monkeypatch):
    """Paint the actors pixel by pixel, count whose each pixel is, and compare with the annotation and the picture."""
    caught = {}

    def watched(image, actors):
        caught["actors"], caught["seen"] = actors, compose(image, actors)
        caught["image"] = image
        return caught["seen"]

    monkeypatch.setattr(crowd_scene, "compose", watched)
    monkeypatch.setattr(crowd_scene, "_shadow", lambda image, actor: None)
    compared = pixels = 0
    for index in (2, 9, 31):
        _, seen = render(VAL, index)
        owner, last = np.full(SIZE, -1), np.full(SIZE, -1)
        ordered = sorted(caught["actors"], key=lambda a: a.nearness)
        for i, actor in enumerate(ordered):
            for r, c in zip(*np.nonzero(actor.opacity), strict=True):
                y, x = actor.y + r, actor.x + c
                if 0 <= y < HEIGHT and 0 <= x < WIDTH:
                    last[y, x] = i
                    if actor.opacity[r, c] > 0.5:
                        owner[y, x] = i
        boxes = iter(b for b in annotate(seen) if b["tag"] == "person")
        for i, actor in enumerate(ordered):
            if actor.kind != PERSON:
                continue
            shown = np.zeros(SIZE, bool)
            for r, c in zip(*np.nonzero(actor.figure.top), strict=True):
                y, x = actor.y + r, actor.x + c
                if 0 <= y < HEIGHT and 0 <= x < WIDTH and owner[y, x] == i:
                    shown[y, x] = True
            if not shown.any():
                continue
            box, share = next(boxes), shown.sum() / actor.figure.body.sum()
            assert box["vbox"] == around(shown)
            assert box["fbox"] == around(actor.figure.body, actor.x, actor.y)
            assert box["hbox"] == around(actor.figure.head, actor.x, actor.y)
            assert box["extra"]["occ"] == (share < OCC_SHARE)
            assert box["extra"].get("ignore", 0) == (share < MIN_SHARE or shown.sum() < MIN_PIXELS)
            # where nothing half transparent lies on top, the picture has the person's own colours
            rows, cols = np.nonzero(shown & (last == i))
            solid = actor.opacity[rows - actor.y, cols - actor.x] == 1
            painted = actor.colour[rows - actor.y, cols - actor.x]
            np.testing.assert_allclose(caught["image"][rows, cols][solid], painted[solid], atol=1e-3)
            pixels += solid.sum()
            compared += 1
        assert next(boxes, None) is None
    assert compared > 25
    assert pixels > 3000


# -------------------------------------------------------------------------------------------------- archive

TINY = (Split("train", 0, 3), Split("val", 1, 2))


def test_archive_bytes_follow_from_the_content(tmp_path):
    for name in ("a", "b"):
        minicrowd.generate(tmp_path / f"{name}.zip", 1, TINY)
    first, second = (hashlib.sha256((tmp_path / f"{n}.zip").read_bytes()).hexdigest() for n in "ab")
    assert first == second
    with zipfile.ZipFile(tmp_path / "a.zip") as content:
        assert [i.filename for i in content.infolist()] == [
            *(f"Images/minicrowd,train{i:05d}.jpg" for i in range(3)), "annotation_train.odgt",
            *(f"Images/minicrowd,val{i:05d}.jpg" for i in range(2)), "annotation_val.odgt",
        ]  # fmt: skip
        assert {(i.date_time, i.compress_type) for i in content.infolist()} == {(DATE, zipfile.ZIP_STORED)}
        lines = content.read("annotation_val.odgt").decode().splitlines()
        assert [json.loads(line)["ID"] for line in lines] == ["minicrowd,val00000", "minicrowd,val00001"]
        # one image by itself is the one of the batch
        image, seen = render(VAL, 1)
        assert json.loads(lines[1])["gtboxes"] == annotate(seen)
        stored = np.frombuffer(content.read("Images/minicrowd,val00001.jpg"), np.uint8)
        loss = cv2.imdecode(stored, cv2.IMREAD_COLOR)[..., ::-1].astype(float) - image
        assert np.abs(loss).mean() < 6
    assert not list(tmp_path.glob("*.partial"))


def test_an_interrupted_archive_leaves_the_old_one(tmp_path):
    path = tmp_path / "set.zip"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), new_archive(path) as out:
        out.add("a", b"1")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old"
    with new_archive(path) as out:
        out.add("a", b"1")
    with zipfile.ZipFile(path) as content:
        assert content.read("a") == b"1"


def test_pinned_archive_counts(archive):
    assert len(archive.namelist()) == 800 + 300 + 2
    assert ARCHIVE.stat().st_size < 13e6
    for split in SPLITS:
        records = [json.loads(line) for line in archive.read(f"annotation_{split.name}.odgt").decode().splitlines()]
        assert [r["ID"] for r in records] == [image_id(split, i) for i in range(split.images)]
        boxes = [r["gtboxes"] for r in records]
        assert 11 < np.mean([len(persons(b)) for b in boxes]) < 13
        assert min(len(persons(b)) for b in boxes) >= 1
        assert 1.0 < np.mean([close_pairs(b) for b in boxes]) < 1.7


@pytest.mark.parametrize(("split", "index"), [(TRAIN, 0), (TRAIN, 411), (TRAIN, 799), (VAL, 0), (VAL, 299)])
def test_pinned_archive_is_what_the_code_draws(archive, split, index):
    data, line = minicrowd._encoded(split, index)
    assert archive.read(f"annotation_{split.name}.odgt").decode().splitlines()[index] == line
    ours, theirs = (
        cv2.imdecode(np.frombuffer(d, np.uint8), cv2.IMREAD_COLOR).astype(float)
        for d in (data, archive.read(f"Images/{image_id(split, index)}.jpg"))
    )
    assert np.abs(ours - theirs).mean() < 1.5
