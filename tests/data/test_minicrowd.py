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
from benchmark.data.canvas import Figure
from benchmark.data.crowd_scene import FAR, LOOKALIKE, PERSON, Actor, Camera, Seen, bounds, compose, place
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
from benchmark.data.people import _Person, draw_person
from benchmark.data.poses import Pose, random_pose
from benchmark.data.props import OCCLUDERS, PROPS
from benchmark.data.wardrobe import random_look
from benchmark.experiment.workspace import ROOT

pytestmark = pytest.mark.slow

TRAIN, VAL = SPLITS
HEIGHT, WIDTH = SIZE
ARCHIVE = ROOT / "data" / "minicrowd.zip"
SAMPLE = [*range(0, 800, 20), *range(0, 300, 15)]


@pytest.fixture(scope="module")
def drawn() -> list[tuple[np.ndarray, list[Seen]]]:
    """Sixty images of both splits."""
    return [render(TRAIN if n < 40 else VAL, i) for n, i in enumerate(SAMPLE)]


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


def test_an_image_drawn_twice_is_the_same(drawn):
    for n in (0, 17, 45):
        image, seen = render(TRAIN if n < 40 else VAL, SAMPLE[n])
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


# ------------------------------------------------------------------------------------------- hand-made scenes


def block(x: int, y: int, side: int, kind: str, nearness: float) -> Actor:
    """A square whose upper quarter is its head."""
    solid, head = np.ones((side, side), bool), np.zeros((side, side), bool)
    head[: max(1, side // 4)] = True
    colour = np.full((side, side, 3), 10 * nearness, np.float32)
    figure = Figure(colour, solid.astype(np.float32), solid, head, solid, (side // 2, side))
    return Actor(
        colour=colour, opacity=figure.opacity, x=x, y=y, figure=figure, kind=kind, nearness=nearness, grounded=False
    )


def scene(*actors: Actor) -> tuple[np.ndarray, list[dict]]:
    image = np.zeros((*SIZE, 3), np.float32)
    return image, annotate(compose(image, list(actors)))


@pytest.mark.parametrize(
    ("covered", "occ", "ignore"), [(0, 0, 0), (2, 0, 0), (3, 1, 0), (17, 1, 0), (18, 1, 1), (19, 1, 1)]
)
def test_occlusion_is_told_by_the_share_that_shows(covered, occ, ignore):
    """A square of 20 columns behind a thing; less than 90% is occluded, less than 15% ignored."""
    image, boxes = scene(block(50 - covered, 45, 30, "", 2), block(30, 50, 20, PERSON, 1))
    assert boxes == [
        {
            "tag": "person",
            "fbox": [30, 50, 20, 20],
            "vbox": [30, 50, 20 - covered, 20],
            "hbox": [30, 50, 20, 5],
            "head_attr": {"ignore": 0, "occ": occ, "unsure": 0},
            "extra": {"box_id": 0, "occ": occ} | ({"ignore": 1} if ignore else {}),
        }
    ]
    assert image[60, 30, 0] == 10
    assert image[60, 79 - covered, 0] == 20


def test_who_is_hidden_is_left_out_and_numbers_go_on():
    _, boxes = scene(
        block(30, 50, 20, PERSON, 1), block(25, 45, 40, PERSON, 2), block(200, 50, 20, PERSON, 3),
        block(400, 50, 20, PERSON, 4),
    )  # fmt: skip
    assert [(b["fbox"], b["extra"]["box_id"]) for b in boxes] == [([25, 45, 40, 40], 0), ([200, 50, 20, 20], 1)]


def test_the_border_cuts_vbox_but_not_fbox():
    _, boxes = scene(block(-8, HEIGHT - 12, 20, PERSON, 1), block(-2, 40, 3, PERSON, 2))
    assert boxes[0]["fbox"] == [-8, HEIGHT - 12, 20, 20]
    assert boxes[0]["vbox"] == [0, HEIGHT - 12, 12, 12]
    assert boxes[0]["extra"] == {"box_id": 0, "occ": 1}
    # three pixels are too few to tell a person
    assert boxes[1]["vbox"] == [0, 40, 1, 3]
    assert boxes[1]["extra"]["ignore"] == 1


def test_far_people_become_one_mask_and_lookalikes_one_each():
    far = [block(50 + 6 * i, 40, 8, FAR, 0.5) for i in range(4)]
    _, boxes = scene(
        *far, block(150, 50, 20, LOOKALIKE, 1), block(10, 10, 3, LOOKALIKE, 1), block(60, 38, 5, PERSON, 2)
    )
    masks = [b for b in boxes if b["tag"] == "mask"]
    assert [b["fbox"] for b in masks] == [[150, 50, 20, 20], [50, 40, 26, 8]]
    assert [b["fbox"] for b in persons(boxes)] == [[60, 38, 5, 5]]


def test_bounds():
    mask = np.zeros((9, 12), bool)
    assert bounds(mask) == (0, 0, 0, 0)
    mask[3, 4] = mask[5, 10] = True
    assert bounds(mask, -7, 100) == (-3, 103, 7, 3)


# -------------------------------------------------------------------------------------------------- figures


def upright(yaw: float) -> Pose:
    arms = np.array([[0.0, 0.1], [0.0, 0.1]])
    return Pose(yaw, 0.0, arms * 0.4, np.zeros(2), arms, arms * 0, 0.0)


@pytest.mark.parametrize("height", [17, 30, 60, 165])
@pytest.mark.parametrize("yaw", [0.0, 1.6, np.pi])
def test_a_person_has_the_height_asked_for(height, yaw):
    rng = np.random.default_rng(5)
    look = random_look(rng, False, False, False)
    figure = draw_person(type(look)(**{**vars(look), "hat": "none", "hair": "short"}), upright(yaw), height)
    _, top, _, tall = bounds(figure.body)
    _, head_top, head_wide, head_tall = bounds(figure.head)
    assert abs(tall - height) <= 1 + 0.06 * height
    assert abs(head_top - top) <= 1
    assert abs(head_tall - 0.15 * height) <= 1 + 0.03 * height
    assert 0.5 <= head_wide / head_tall < 1.3
    assert abs(figure.foot[1] - (top + tall)) <= 1 + 0.05 * height


def test_no_body_leaves_its_canvas_and_things_are_no_body():
    rng, umbrellas = np.random.default_rng(1), 0
    for _ in range(120):
        look = random_look(rng, rng.random() < 0.2, rng.random() < 0.3, rng.random() < 0.3)
        person = _Person(look, random_pose(rng), 40.0, 0.0)
        figure, paint = person.draw(), person.canvas.paint[..., 3]
        assert not (paint[0].any() or paint[-1].any() or paint[:, 0].any() or paint[:, -1].any())
        assert figure.head.any()
        assert not (figure.head & ~figure.body).any()
        assert not (figure.top & ~figure.body).any()
        assert not (figure.body & ~figure.head & (figure.opacity <= 0.5)).any()
        if look.umbrella:
            umbrellas += 1
            assert bounds(figure.opacity > 0.5)[1] < bounds(figure.body)[1]
    assert umbrellas > 5


@pytest.mark.parametrize("prop", sorted({*PROPS, *OCCLUDERS}, key=lambda p: p.__name__))
def test_props_stand_on_the_ground_and_are_nobody(prop):
    camera = Camera(20.0, 2.0, 0.0, np.zeros(3), 0.0)
    for seed in range(3):
        figure = prop(np.random.default_rng(seed), 30.0, 0.3)
        assert not figure.body.any()
        assert not figure.top.any()
        assert (figure.opacity > 0.5).sum() > 20
        actor = place(figure, 100.0, camera, 30.0)
        x, y, w, h = bounds(actor.opacity > 0.2, actor.x, actor.y)
        assert x <= 108
        assert x + w >= 92
        # the ground is at row 20 + 2 * 30
        assert abs(y + h - 80) <= 7
        assert y < 66


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
