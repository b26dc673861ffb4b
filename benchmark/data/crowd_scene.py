"""Crowds in perspective: people in groups from far to near, things among and before them, and what shows of each.

Everything is a function of a ``numpy.random.Generator``, so that any single image can be drawn again by its number.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from benchmark.data.backdrop import backdrop
from benchmark.data.canvas import Figure
from benchmark.data.people import draw_person
from benchmark.data.poses import random_pose
from benchmark.data.props import OCCLUDERS, PROPS, board, plinth
from benchmark.data.scene import Layer, photograph
from benchmark.data.wardrobe import random_look

ADULT = 1.7
#: the smallest and the largest person, in pixels from head to foot
HEIGHTS = (17.0, 168.0)
MOST = 30
PERSON, LOOKALIKE, FAR = "person", "lookalike", "far"


@dataclass(kw_only=True)
class Actor(Layer):
    """A layer of the scene. ``kind`` is :data:`PERSON`, :data:`LOOKALIKE`, :data:`FAR` or empty for a mere thing."""

    figure: Figure
    kind: str
    #: pixels to a metre: what is larger stands in front; of two alike, the later one
    nearness: float
    #: whether it stands on the ground and casts a shadow there
    grounded: bool = True


@dataclass
class Seen:
    """What shows of a person, a lookalike or a far crowd.

    ``full`` and ``head`` are boxes ``(x, y, w, h)`` of the whole silhouettes, inside the image or not; ``visible`` is
    the mask ``[H, W]`` of the pixels that show. ``share`` and ``head_share`` tell how much of the silhouettes they are.
    """

    kind: str
    full: tuple[int, int, int, int]
    head: tuple[int, int, int, int]
    visible: np.ndarray
    share: float
    head_share: float


@dataclass(frozen=True)
class Camera:
    """A level camera ``height`` metres above the ground whose horizon is at row ``horizon``."""

    horizon: float
    height: float
    #: where the light comes from, -1 (left) to 1
    light: float
    #: colour that far things take on, and how strongly
    haze: np.ndarray
    thickness: float

    def foot(self, scale: float) -> float:
        """Image row of the ground where a metre has ``scale`` pixels."""
        return self.horizon + scale * self.height


def bounds(mask: np.ndarray, x: int = 0, y: int = 0) -> tuple[int, int, int, int]:
    """Tight box ``(x, y, w, h)`` of a mask that lies at (x, y); zeros for an empty one."""
    rows, cols = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return 0, 0, 0, 0
    return x + int(cols[0]), y + int(rows[0]), int(cols[-1] - cols[0]) + 1, int(rows[-1] - rows[0]) + 1


def place(figure: Figure, x: float, camera: Camera, scale: float, kind: str = "", lift: float = 0.0) -> Actor:
    """Stand ``figure`` on the ground at column ``x``, or ``lift`` metres above it."""
    row = camera.foot(scale) - lift * scale
    fog = camera.thickness * np.exp(-scale * ADULT / 40)
    colour = figure.colour * (1 - fog) + camera.haze * fog
    left, top = round(x) - figure.foot[0], round(row) - figure.foot[1]
    return Actor(
        colour=colour.astype(np.float32),
        opacity=figure.opacity,
        x=left,
        y=top,
        figure=figure,
        kind=kind,
        nearness=scale,
        grounded=lift == 0,
    )


def random_camera(rng: np.random.Generator, size: tuple[int, int]) -> Camera:
    """At eye level, where heads line up, or above the crowd."""
    if rng.random() < 0.45:
        height, horizon = rng.uniform(1.35, 2.0), rng.uniform(0.2, 0.48)
    else:
        height, horizon = rng.uniform(2.1, 4.2), rng.uniform(-0.05, 0.3)
    haze = np.full(3, rng.uniform(120, 220)) + rng.normal(0, 12, 3)
    return Camera(horizon * size[0], height, rng.uniform(-1, 1), haze, rng.uniform(0, 0.5))


def _scales(rng: np.random.Generator, camera: Camera, size: tuple[int, int]) -> tuple[float, float]:
    """Smallest and largest pixels to a metre of this scene, such that even the nearest show their heads."""
    head_row = camera.height - ADULT
    nearest = HEIGHTS[1] / ADULT
    if head_row > 0:
        nearest = min(nearest, (0.8 * size[0] - camera.horizon) / head_row)
    low = HEIGHTS[0] * np.exp(rng.uniform(0, 0.9)) / ADULT
    high = low * np.exp(rng.uniform(1.0, 2.4))
    return low, float(np.clip(high, low * 1.5, max(nearest, low * 1.5)))


def people(rng: np.random.Generator, camera: Camera, size: tuple[int, int], scales: tuple[float, float]) -> list[Actor]:
    """Groups of one to six who stand close together and mostly look the same way."""
    low, high = np.log(scales)
    count = min(MOST, 7 + int(rng.poisson(rng.gamma(3.0, 9.9 / 3))))
    rain, cold = rng.random() < 0.1, rng.random() < 0.35
    march = rng.uniform(0, 2 * np.pi) if rng.random() < 0.4 else None
    actors: list[Actor] = []
    while len(actors) < count:
        members = min(int(rng.choice([1, 2, 3, 4, 6], p=[0.3, 0.3, 0.2, 0.12, 0.08])), count - len(actors))
        centre, middle = rng.uniform(-0.03, 1.03) * size[1], np.exp(low + (high - low) * rng.beta(1.1, 1.5))
        tight, common = rng.uniform(0.14, 0.55), rng.uniform(0, 2 * np.pi) if rng.random() < 0.5 else march
        for _ in range(members):
            child = rng.random() < 0.12
            scale = float(np.clip(middle * np.exp(rng.normal(0, 0.07)), *scales))
            tall = rng.uniform(0.95, 1.4) if child else np.clip(rng.normal(ADULT, 0.09), 1.5, 1.95)
            look = random_look(rng, child, rain, cold)
            pose = random_pose(rng, None if common is None or rng.random() < 0.3 else common + rng.normal(0, 0.3))
            height = float(np.clip(tall * scale, *HEIGHTS))
            x = centre + rng.normal(0, tight) * scale * ADULT * 0.8
            actors.append(place(draw_person(look, pose, height, camera.light), x, camera, scale, PERSON))
    return actors


def far_crowd(rng: np.random.Generator, camera: Camera, size: tuple[int, int], scale: float) -> list[Actor]:
    """Many tiny people packed together, too small to tell apart."""
    width = rng.uniform(0.12, 0.4) * size[1]
    centre, depth = rng.uniform(0.1, 0.9) * size[1], rng.uniform(1.1, 1.6)
    actors = []
    for _ in range(int(width * rng.uniform(0.35, 0.6)) + 8):
        at = scale * depth ** rng.uniform(-1, 0)
        look = random_look(rng, False, False, False)
        figure = draw_person(look, random_pose(rng, upright=True), at * rng.uniform(1.5, 1.85), camera.light)
        actors.append(place(figure, centre + rng.uniform(-0.5, 0.5) * width, camera, at, FAR))
    return actors


def lookalike(rng: np.random.Generator, camera: Camera, x: float, scale: float) -> list[Actor]:
    """A statue, a mannequin, or a board with a poster or a mirror image of somebody."""
    look = random_look(rng, False, False, rng.random() < 0.3)
    kind = rng.choice(["statue", "mannequin", "poster", "mirror"])
    if kind == "statue":
        material = np.array(rng.choice([(96, 104, 92), (170, 166, 158), (94, 72, 52)])) * rng.uniform(0.8, 1.15)
        height = rng.uniform(0.4, 1.3)
        figure = draw_person(look.cast(material), random_pose(rng, upright=True), 1.8 * scale, camera.light)
        base = place(plinth(rng, scale, camera.light, material, height), x, camera, scale)
        return [base, place(figure, x, camera, scale, LOOKALIKE, lift=height)]
    if kind == "mannequin":
        naked = look.cast(np.full(3, rng.uniform(190, 240)))
        dressed = replace(look, skin=naked.skin, legs=naked.skin, hair="bald", blank=True, bag="none", umbrella=False)
        look, pose = naked if rng.random() < 0.4 else dressed, random_pose(rng, upright=True)
        stand = plinth(rng, scale, camera.light, np.full(3, rng.uniform(60, 200)), 0.1)
        figure = draw_person(look, pose, 1.75 * scale, camera.light)
        return [place(stand, x, camera, scale), place(figure, x, camera, scale, LOOKALIKE, lift=0.1)]
    panel = board(rng, scale, camera.light)
    somebody = draw_person(look, random_pose(rng, yaw=rng.normal(0, 0.5)), scale * rng.uniform(1.6, 4.0), camera.light)
    if kind == "mirror":
        somebody.colour = somebody.colour * 0.55 + 60
    return [place(_pictured(panel, somebody, rng), x, camera, scale, LOOKALIKE)]


def _pictured(panel: Figure, somebody: Figure, rng: np.random.Generator) -> Figure:
    """Paint ``somebody`` on the inside of a board, cut by its frame."""
    height, width = panel.opacity.shape
    inside = np.zeros((height, width), bool)
    margin = max(1, round(0.05 * width))
    inside[margin : round(0.78 * height), margin : width - margin] = True
    x = width // 2 - somebody.foot[0] + round(rng.normal(0, 0.06) * width)
    y = round(0.1 * height)
    shown = np.zeros((height, width), np.float32)
    colour = np.zeros((height, width, 3), np.float32)
    h, w = somebody.opacity.shape
    rows, cols = slice(y, min(height, y + h)), slice(max(0, x), min(width, x + w))
    source = (slice(0, rows.stop - rows.start), slice(cols.start - x, cols.stop - x))
    shown[rows, cols], colour[rows, cols] = somebody.opacity[source], somebody.colour[source]
    alpha = (shown * inside)[..., None]
    mask = alpha[..., 0] > 0.5
    mixed = panel.colour * (1 - alpha) + colour * alpha
    return Figure(mixed, panel.opacity, mask, mask, mask, panel.foot)


def _props(rng: np.random.Generator, camera: Camera, size: tuple[int, int], scales: tuple[float, float]) -> list[Actor]:
    low, high = np.log(scales)
    actors: list[Actor] = []
    for _ in range(int(rng.integers(0, 4))):
        scale = np.exp(rng.uniform(low, high))
        prop = PROPS[rng.integers(len(PROPS))]
        actors.append(place(prop(rng, scale, camera.light), rng.uniform(0, size[1]), camera, scale))
    for _ in range(int(rng.choice([0, 1, 2], p=[0.4, 0.45, 0.15]))):
        scale = np.exp(rng.uniform(0.5 * (low + high), high))
        prop = OCCLUDERS[rng.integers(len(OCCLUDERS))]
        actors.append(place(prop(rng, scale, camera.light), rng.uniform(0, size[1]), camera, scale))
    if rng.random() < 0.45:
        scale = np.exp(rng.uniform(low, high))
        actors.extend(lookalike(rng, camera, rng.uniform(0.05, 0.95) * size[1], scale))
    return actors


def compose(image: np.ndarray, actors: list[Actor]) -> list[Seen]:
    """Paste ``actors`` from far to near into ``image`` (float RGB ``[H, W, 3]``, changed) and see what shows of each.

    The members of a far crowd become one :class:`Seen`. Those of whom no pixel shows are left out.
    """
    size = image.shape[:2]
    actors = [a for a in sorted(actors, key=lambda a: a.nearness) if a.window(size) is not None]
    owner = np.full(size, -1, np.int32)
    for i, actor in enumerate(actors):
        rows, cols, prows, pcols = actor.window(size)
        if actor.grounded and actor.kind:
            _shadow(image, actor)
        alpha = actor.opacity[prows, pcols]
        image[rows, cols] = image[rows, cols] * (1 - alpha[..., None]) + actor.colour[prows, pcols] * alpha[..., None]
        owner[rows, cols][alpha > 0.5] = i
    seen, crowd = [], np.zeros(size, bool)
    for i, actor in enumerate(actors):
        if not actor.kind:
            continue
        rows, cols, prows, pcols = actor.window(size)
        own, visible, figure = owner[rows, cols] == i, np.zeros(size, bool), actor.figure
        visible[rows, cols] = own & figure.top[prows, pcols]
        if actor.kind == FAR:
            crowd |= visible
        elif visible.any():
            head = (visible[rows, cols] & figure.head[prows, pcols]).sum()
            seen.append(
                Seen(
                    kind=actor.kind,
                    full=bounds(figure.body, actor.x, actor.y),
                    head=bounds(figure.head, actor.x, actor.y),
                    visible=visible,
                    share=float(visible.sum() / figure.body.sum()),
                    head_share=float(head / figure.head.sum()),
                )
            )
    if crowd.any():
        box = bounds(crowd)
        seen.append(Seen(FAR, box, box, crowd, 1.0, 1.0))
    return seen


def _shadow(image: np.ndarray, actor: Actor) -> None:
    """A soft dark patch on the ground under the feet."""
    x, y = actor.x + actor.figure.foot[0], actor.y + actor.figure.foot[1]
    wide = max(2, round(0.35 * actor.nearness))
    flat = max(1, wide // 3)
    top, left = max(0, y - flat), max(0, x - wide)
    region = image[top : max(0, y + flat + 1), left : max(0, x + wide + 1)]
    if region.size:
        yy, xx = np.mgrid[top : top + region.shape[0], left : left + region.shape[1]].astype(np.float32)
        distance = ((xx - x) / wide) ** 2 + ((yy - y) / flat) ** 2
        region *= 1 - 0.4 * np.clip(1 - distance, 0, 1)[..., None]


def crowd_scene(rng: np.random.Generator, size: tuple[int, int]) -> tuple[np.ndarray, list[Seen]]:
    """One image, uint8 RGB ``[H, W, 3]`` of ``size`` (height, width), and whoever shows in it, from far to near."""
    camera = random_camera(rng, size)
    image = backdrop(rng, size, round(camera.horizon))
    scales = _scales(rng, camera, size)
    actors = _props(rng, camera, size, scales)
    far = min(scales[0] * 0.6, 11 / ADULT)
    if rng.random() < 0.4 and camera.foot(far) > 6:
        actors.extend(far_crowd(rng, camera, size, far))
    actors.extend(people(rng, camera, size, scales))
    seen = compose(image, actors)
    return photograph(rng, image), seen
