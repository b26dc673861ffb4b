"""What stands among the people of minicrowd: street furniture, plants, cars and things that resemble a person.

Lengths are in metres; every function draws one thing at ``scale`` pixels to a metre, with light from ``light``.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmark.data.canvas import THING, Canvas, Figure
from benchmark.data.wardrobe import cloth

Prop = Callable[[np.random.Generator, float, float], Figure]


def _rectangle(left: float, bottom: float, right: float, top: float) -> np.ndarray:
    return np.array(((left, bottom), (right, bottom), (right, top), (left, top)))


def _metal(rng: np.random.Generator) -> np.ndarray:
    return np.clip(rng.uniform(40, 190) + rng.normal(0, 8, 3), 20, 220)


def _green(rng: np.random.Generator) -> np.ndarray:
    return np.array((74, 106, 52)) * rng.uniform(0.6, 1.4) + rng.normal(0, 8, 3)


def lamp_post(rng: np.random.Generator, scale: float, light: float) -> Figure:
    """A post with a round lamp; the short ones are of a person's size."""
    height, canvas_colour = rng.uniform(1.6, 3.8), _metal(rng)
    canvas = Canvas((-0.5, -0.1, 0.5, height + 0.4), scale, light)
    canvas.limb(((0, 0), (0, height)), (0.09, 0.06), canvas_colour, THING)
    canvas.limb(((0, 0), (0, 0.25)), (0.15, 0.13), canvas_colour, THING)
    canvas.ball((0, height + 0.12), (0.17, 0.2), (236, 228, 200) * rng.uniform(0.6, 1, 1), THING)
    return canvas.figure()


def sign_post(rng: np.random.Generator, scale: float, light: float) -> Figure:
    height = rng.uniform(1.6, 2.6)
    canvas = Canvas((-0.6, -0.1, 0.6, height + 0.6), scale, light)
    canvas.limb(((0, 0), (0, height + 0.2)), (0.05, 0.05), _metal(rng), THING)
    sides = int(rng.choice([3, 4, 8, 20]))
    turn = np.arange(sides) * 2 * np.pi / sides + np.pi / 2
    plate = np.stack([np.cos(turn), np.sin(turn)], 1)
    for size, colour in ((0.36, cloth(rng)), (0.27, (232, 232, 228)), (0.1, cloth(rng))):
        canvas.fill(plate * size + (0, height), colour, THING)
    return canvas.figure()


def column(rng: np.random.Generator, scale: float, light: float) -> Figure:
    """A plain pole or pillar that leaves the picture at the top."""
    wide = rng.choice([rng.uniform(0.05, 0.1), rng.uniform(0.11, 0.2)])
    canvas = Canvas((-0.5, -0.1, 0.5, 4.5), scale, light)
    canvas.limb(((0, 0), (0, 4.5)), (wide, wide), _metal(rng), THING)
    return canvas.figure()


def bollard(rng: np.random.Generator, scale: float, light: float) -> Figure:
    """A post as high as a child, with a ball for a head."""
    canvas, colour = Canvas((-0.4, -0.1, 0.4, 1.5), scale, light), cloth(rng)
    height = rng.uniform(0.7, 1.1)
    canvas.limb(((0, 0), (0, height)), (0.14, 0.12), colour, THING)
    canvas.ball((0, height + 0.13), (0.13, 0.14), cloth(rng) if rng.random() < 0.5 else colour, THING)
    return canvas.figure()


def tree(rng: np.random.Generator, scale: float, light: float) -> Figure:
    canvas, colour = Canvas((-1.6, -0.1, 1.6, 5.2), scale, light), _green(rng)
    canvas.limb(((0, 0), (rng.normal(0, 0.1), 2.6)), (0.17, 0.11), (86, 66, 50), THING)
    for _ in range(14):
        at, size = rng.normal((0, 3.4), (0.55, 0.5)), rng.uniform(0.35, 0.7)
        canvas.ball(at, (size, size * 0.85), np.clip(colour * rng.uniform(0.75, 1.2), 0, 255), THING)
    return canvas.figure()


def bush(rng: np.random.Generator, scale: float, light: float) -> Figure:
    """A shrub, at times in a tub."""
    canvas, colour = Canvas((-1.2, -0.1, 1.2, 1.9), scale, light), _green(rng)
    tub = rng.random() < 0.5
    spread = 0.25 if tub else 0.5
    for _ in range(16):
        at, size = rng.normal((0, 0.75 if tub else 0.4), (spread, 0.2)), rng.uniform(0.12, 0.3)
        canvas.ball(at, (size, size * 0.9), np.clip(colour * rng.uniform(0.7, 1.25), 0, 255), THING)
    if tub:
        pot = np.array(((-0.3, 0), (0.3, 0), (0.4, 0.55), (-0.4, 0.55)))
        canvas.blob(pot, (150, 92, 66) if rng.random() < 0.6 else _metal(rng), THING, rounds=1)
    return canvas.figure()


def car(rng: np.random.Generator, scale: float, light: float) -> Figure:
    """A car from its side."""
    canvas, paint = Canvas((-2.3, -0.1, 2.3, 1.8), scale, light), cloth(rng)
    roof = rng.uniform(1.35, 1.65)
    cabin = np.array(((-1.5, 0.75), (-0.95, roof), (0.55, roof), (1.3, 0.8)))
    body = np.array(((-2.1, 0.3), (-2.1, 0.8), (-1.4, 0.95), (1.2, 0.95), (2.1, 0.72), (2.1, 0.3)))
    canvas.blob(cabin, paint, THING, rounds=1)
    glass = np.array((120, 140, 152)) * rng.uniform(0.4, 1.1)
    canvas.fill(np.array(((-1.25, 0.9), (-0.85, roof - 0.1), (-0.3, roof - 0.1), (-0.3, 0.9))), glass, THING)
    canvas.fill(np.array(((-0.2, 0.9), (-0.2, roof - 0.1), (0.45, roof - 0.1), (0.95, 0.9))), glass, THING)
    canvas.blob(body, paint, THING, rounds=1)
    for x in (-1.3, 1.3):
        canvas.ball((x, 0.32), (0.33, 0.33), (42, 42, 44), THING)
        canvas.ball((x, 0.32), (0.17, 0.17), (168, 168, 172), THING)
    return canvas.figure()


def barrier(rng: np.random.Generator, scale: float, light: float) -> Figure:
    """A crowd barrier: two rails and bars."""
    canvas, colour = Canvas((-1.3, -0.1, 1.3, 1.3), scale, light), _metal(rng)
    for x in np.arange(-1.05, 1.1, rng.choice([0.15, 0.3])):
        canvas.limb(((x, 0.25), (x, 1.08)), (0.016, 0.016), colour, THING)
    for y in (0.25, 1.08):
        canvas.limb(((-1.15, y), (1.15, y)), (0.032, 0.032), colour, THING)
    for x in (-1.15, 1.15):
        canvas.limb(((x, 0), (x, 1.08)), (0.032, 0.032), colour, THING)
    return canvas.figure()


def fence(rng: np.random.Generator, scale: float, light: float) -> Figure:
    """A paling or railing, as wide as a street."""
    half, height = 4.0, rng.uniform(0.6, 1.15)
    canvas, colour = Canvas((-half, -0.1, half, height + 0.2), scale, light), _metal(rng)
    wide, gap = (0.045, 0.17) if rng.random() < 0.5 else (0.02, 0.13)
    for y in (0.25 * height, 0.85 * height):
        canvas.limb(((-half, y), (half, y)), (0.03, 0.03), colour * 0.9, THING)
    for x in np.arange(-half, half, gap):
        canvas.fill(_rectangle(x - wide, 0, x + wide, height), colour * rng.uniform(0.85, 1.1), THING)
    return canvas.figure()


def bin_(rng: np.random.Generator, scale: float, light: float) -> Figure:
    canvas, colour = Canvas((-0.5, -0.1, 0.5, 1.2), scale, light), _green(rng) if rng.random() < 0.5 else _metal(rng)
    canvas.limb(((0, 0.25), (0, 0.75)), (0.25, 0.3), colour, THING)
    canvas.limb(((-0.25, 0.95), (0.25, 0.95)), (0.09, 0.09), colour * 0.7, THING)
    return canvas.figure()


def cone(rng: np.random.Generator, scale: float, light: float) -> Figure:
    canvas = Canvas((-0.4, -0.1, 0.4, 0.9), scale, light)
    canvas.fill(_rectangle(-0.28, 0, 0.28, 0.07), (60, 58, 56), THING)
    canvas.limb(((0, 0.1), (0, 0.7)), (0.19, 0.05), (224, 100, 40), THING)
    canvas.limb(((0, 0.34), (0, 0.46)), (0.125, 0.1), (232, 230, 226), THING)
    return canvas.figure()


def coat_stand(rng: np.random.Generator, scale: float, light: float) -> Figure:
    """Coats on hangers: clothes that nobody wears."""
    coats = int(rng.integers(1, 4))
    canvas = Canvas((-1.2, -0.1, 1.2, 2.0), scale, light)
    for x in (-1.0, 1.0) if coats > 1 else (0.0,):
        canvas.limb(((x, 0), (x, 1.75)), (0.035, 0.035), (70, 66, 64), THING)
    if coats > 1:
        canvas.limb(((-1.0, 1.75), (1.0, 1.75)), (0.03, 0.03), (70, 66, 64), THING)
    for x in np.linspace(-0.6, 0.6, coats) if coats > 1 else (0.0,):
        colour, hem = cloth(rng), rng.uniform(0.5, 0.95)
        for side in (-1, 1):
            sleeve = ((x + side * 0.19, 1.42), (x + side * 0.27, 0.85))
            canvas.limb(sleeve, (0.07, 0.06), colour * 0.92, THING)
        coat = np.array(((-0.1, 1.55), (0.1, 1.55), (0.25, 1.42), (0.24, hem), (-0.24, hem), (-0.25, 1.42))) + (x, 0)
        canvas.blob(coat, colour, THING, rounds=1)
        canvas.limb(((x, 1.5), (x, 1.72)), (0.015, 0.015), (150, 150, 150), THING)
    return canvas.figure()


def balloons(rng: np.random.Generator, scale: float, light: float) -> Figure:
    """Balloons on strings, about where heads are."""
    canvas = Canvas((-0.7, -0.1, 0.7, 2.5), scale, light)
    for _ in range(int(rng.integers(2, 7))):
        at = rng.normal((0, 1.8), (0.2, 0.2))
        canvas.limb(((0, 0.0), at), (0.008, 0.008), (90, 90, 90), THING)
        canvas.ball(at, (0.13, 0.16), cloth(rng), THING)
    return canvas.figure()


def board(rng: np.random.Generator, scale: float, light: float) -> Figure:
    """An empty panel on two posts, 1.3 m by 1.9 m, for pictures of people."""
    canvas = Canvas((-0.8, -0.1, 0.8, 2.5), scale, light)
    for x in (-0.55, 0.55):
        canvas.fill(_rectangle(x - 0.04, 0, x + 0.04, 0.5), (70, 70, 72), THING)
    canvas.fill(_rectangle(-0.71, 0.38, 0.71, 2.42), _metal(rng) * 0.7, THING)
    canvas.fill(_rectangle(-0.65, 0.45, 0.65, 2.35), cloth(rng), THING)
    return canvas.figure()


def plinth(rng: np.random.Generator, scale: float, light: float, material: np.ndarray, height: float) -> Figure:
    """The block under a statue."""
    canvas = Canvas((-0.6, -0.1, 0.6, height + 0.1), scale, light)
    canvas.blob(_rectangle(-0.42, 0, 0.42, height), material * rng.uniform(0.7, 0.95), THING, rounds=0)
    canvas.fill(_rectangle(-0.48, height - 0.1, 0.48, height), material * 0.9, THING)
    return canvas.figure()


#: Things among the people, and things that stand in front of them more often.
PROPS: tuple[Prop, ...] = (
    lamp_post, sign_post, column, bollard, tree, bush, car, barrier, bin_, cone, coat_stand, balloons,
)  # fmt: skip
OCCLUDERS: tuple[Prop, ...] = (column, sign_post, car, barrier, bush, fence, lamp_post)
