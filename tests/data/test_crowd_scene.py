"""Drawn crowds: boxes of hand-made scenes, and what a person and a thing look like."""

from __future__ import annotations

import numpy as np
import pytest

from benchmark.data.canvas import Figure
from benchmark.data.crowd_scene import FAR, LOOKALIKE, PERSON, Actor, Camera, bounds, compose, place
from benchmark.data.minicrowd import (
    SIZE,
    annotate,
)
from benchmark.data.people import _Person, draw_person
from benchmark.data.poses import Pose, random_pose
from benchmark.data.props import OCCLUDERS, PROPS
from benchmark.data.wardrobe import random_look

pytestmark = pytest.mark.slow
HEIGHT, WIDTH = SIZE


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
    assert [b["fbox"] for b in boxes if b["tag"] == "person"] == [[60, 38, 5, 5]]


def test_bounds():
    mask = np.zeros((9, 12), bool)
    assert bounds(mask) == (0, 0, 0, 0)
    mask[3, 4] = mask[5, 10] = True
    assert bounds(mask, -7, 100) == (-3, 103, 7, 3)


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
        assert not any(edge.any() for edge in (paint[0], paint[-1], paint[:, 0], paint[:, -1]))
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
