"""Scenes of the mini world: backgrounds, clutter, sprites behind sprites, light and a camera.

Everything is a function of a ``numpy.random.Generator``, so that any single image can be drawn again by its number.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np

from benchmark.data.sprites import CATEGORIES, DECOYS, SPRITES, draw


@dataclass
class Instance:
    """One object: category id from 1, its visible pixels, and whether it stands for a crowd."""

    category_id: int
    mask: np.ndarray
    iscrowd: bool = False


@dataclass
class Layer:
    """Something to paste: colour ``[n, n, 3]``, opacity ``[n, n]``, top-left corner, and whose it is (0: nobody's)."""

    colour: np.ndarray
    opacity: np.ndarray
    x: int
    y: int
    category_id: int = 0
    crowd: bool = False
    #: pixels of the silhouette, inside the image or not
    full_area: float = field(init=False)

    def __post_init__(self) -> None:
        self.full_area = float((self.opacity > 0.5).sum())

    def window(self, size: tuple[int, int]) -> tuple[slice, slice, slice, slice] | None:
        """Slices (image rows, image columns, patch rows, patch columns) of the part inside the image."""
        height, width = size
        top, left = max(0, -self.y), max(0, -self.x)
        bottom = min(self.opacity.shape[0], height - self.y)
        right = min(self.opacity.shape[1], width - self.x)
        if top >= bottom or left >= right:
            return None
        return (
            slice(self.y + top, self.y + bottom),
            slice(self.x + left, self.x + right),
            slice(top, bottom),
            slice(left, right),
        )


def background(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Smooth colour noise of several octaves with a horizon and, at times, a ground pattern; float32 0..255."""
    height, width = size
    image = np.zeros((height, width, 3), np.float32)
    for octave, strength in ((2, 45), (5, 26), (12, 14), (40, 7)):
        grid = rng.normal(0, 1, (octave, octave, 3)).astype(np.float32)
        grid = 0.4 * grid + 0.9 * grid.mean(axis=2, keepdims=True)
        image += strength * cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
    image += rng.uniform(70, 180, 3).astype(np.float32)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    if rng.random() < 0.6:
        angle, place = rng.normal(0, 0.15), rng.uniform(0.2, 0.8) * height
        ground = (y - place + np.tan(angle) * (x - width / 2)) > 0
        image += ground[..., None] * rng.normal(0, 28, 3).astype(np.float32)
    if rng.random() < 0.5:
        angle, period = rng.uniform(0, np.pi), rng.uniform(6, 40)
        wave = np.sin((np.cos(angle) * x + np.sin(angle) * y) * (2 * np.pi / period))
        image += (rng.uniform(4, 16) * wave)[..., None] * rng.uniform(0.3, 1, 3).astype(np.float32)
    return image


def place_sprite(
    rng: np.random.Generator,
    which: tuple,
    length: float,
    size: tuple[int, int],
    category_id: int = 0,
    centre: tuple[float, float] | None = None,
) -> Layer:
    """Draw one sprite whose longer side is about ``length`` pixels, somewhere in the image or at ``centre``."""
    stretch = np.exp(rng.uniform(-0.3, 0.3))
    width, height = (length, length / stretch) if stretch > 1 else (length * stretch, length)
    angle = rng.normal(0, 0.35)
    colour, opacity = draw(which, width, height, angle, rng)
    if rng.random() < 0.5:
        colour, opacity = colour[:, ::-1], opacity[:, ::-1]
    cx, cy = centre if centre is not None else (rng.uniform(0, size[1]), rng.uniform(0, size[0]))
    n = opacity.shape[0]
    return Layer(colour, opacity, round(cx - n / 2), round(cy - n / 2), category_id)


def clutter(rng: np.random.Generator, image: np.ndarray, strokes: int) -> None:
    """Paint lines, arcs and polygons of no category into ``image``."""
    height, width = image.shape[:2]
    for _ in range(strokes):
        colour = tuple(float(c) for c in rng.uniform(20, 235, 3))
        x, y = (int(v) for v in rng.uniform(0, (width, height)))
        kind = rng.integers(3)
        if kind == 0:
            dx, dy = (int(v) for v in rng.normal(0, 30, 2))
            cv2.line(image, (x, y), (x + dx, y + dy), colour, int(rng.integers(1, 4)), cv2.LINE_AA)
        elif kind == 1:
            axes = (int(rng.integers(3, 18)), int(rng.integers(3, 18)))
            start, sweep = int(rng.integers(360)), int(rng.integers(60, 300))
            cv2.ellipse(image, (x, y), axes, start, 0, sweep, colour, int(rng.integers(1, 3)), cv2.LINE_AA)
        else:
            points = (rng.normal(0, 9, (int(rng.integers(3, 6)), 2)) + (x, y)).astype(np.int32)
            cv2.fillPoly(image, [points], colour, cv2.LINE_AA)


def compose(image: np.ndarray, layers: list[Layer], min_visible: float) -> list[Instance]:
    """Paste ``layers`` back to front; leave out objects of which less than ``min_visible`` would show.

    Returns one :class:`Instance` for each object left, with the pixels of it that show. Members of a crowd are pasted
    and merged into a single instance.
    """
    size = image.shape[:2]
    layers = [layer for layer in layers if layer.window(size) is not None]
    while True:
        owner = np.full(size, -1, np.int32)
        for i, layer in enumerate(layers):
            rows, cols, prows, pcols = layer.window(size)
            owner[rows, cols][layer.opacity[prows, pcols] > 0.5] = i
        shown = np.bincount(owner[owner >= 0], minlength=len(layers))
        hidden = [
            i
            for i, layer in enumerate(layers)
            if layer.category_id and not layer.crowd and shown[i] < max(min_visible * layer.full_area, 12)
        ]
        if not hidden:
            break
        # Taking one away uncovers others: the topmost goes first, then everything is looked at again.
        del layers[hidden[-1]]
    for layer in layers:
        rows, cols, prows, pcols = layer.window(size)
        alpha = layer.opacity[prows, pcols, None]
        image[rows, cols] = image[rows, cols] * (1 - alpha) + layer.colour[prows, pcols] * alpha
    instances = [
        Instance(layer.category_id, owner == i)
        for i, layer in enumerate(layers)
        if layer.category_id and not layer.crowd
    ]
    crowd = [i for i, layer in enumerate(layers) if layer.crowd and shown[i]]
    if crowd:
        instances.append(Instance(layers[crowd[0]].category_id, np.isin(owner, crowd), iscrowd=True))
    return instances


def photograph(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Light falling from one side, a colour cast, contrast, defocus and sensor noise; returns uint8 RGB."""
    height, width = image.shape[:2]
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    slope = (np.cos(angle) * (x / width - 0.5) + np.sin(angle) * (y / height - 0.5)) * 2
    light = 1 + rng.uniform(0, 0.35) * slope
    image = np.clip(image, 0, 255) * light[..., None] * rng.uniform(0.85, 1.12, 3).astype(np.float32)
    image = np.clip(image / 255, 0, 1) ** np.float32(np.exp(rng.normal(0, 0.2))) * 255
    if (sigma := rng.uniform(-0.5, 0.75)) > 0.2:
        image = cv2.GaussianBlur(image, (0, 0), sigma)
    image = image + rng.normal(0, rng.uniform(1, 6), image.shape)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def decoy(rng: np.random.Generator, size: tuple[int, int], longest: float) -> Layer:
    """A thing of no category that borrows its parts from the categories."""
    which = DECOYS[rng.integers(len(DECOYS))]
    return place_sprite(rng, which, np.exp(rng.uniform(np.log(8), np.log(longest))), size)


def bar(rng: np.random.Generator, size: tuple[int, int]) -> Layer:
    """A long thin thing that passes in front of others."""
    plain = (lambda u, v: np.minimum(1 - np.abs(u), 1 - np.abs(v)), lambda u, v: 0.5 + 0.5 * u)
    n = float(rng.uniform(0.3, 0.8) * max(size))
    colour, opacity = draw(plain, n, rng.uniform(3, 8), rng.uniform(0, np.pi), rng)
    x, y = rng.uniform(0, size[1]), rng.uniform(0, size[0])
    return Layer(colour, opacity, round(x - opacity.shape[1] / 2), round(y - opacity.shape[0] / 2))


def random_scene(
    rng: np.random.Generator,
    size: tuple[int, int],
    lengths: tuple[float, float],
    counts: tuple[int, int],
    crowd_rate: float = 0.0,
    empty_rate: float = 0.0,
    min_visible: float = 0.3,
) -> tuple[np.ndarray, list[Instance]]:
    """One image and its objects.

    Args:
        rng: the image's own generator.
        size: (height, width).
        lengths: shortest and longest object, as a fraction of the longer image side; between them the logarithm
            follows a Beta(2, 2) law, so that the extremes are rarer than the middle.
        counts: fewest and most objects.
        crowd_rate, empty_rate: chance of a crowd region, of an image without objects.
        min_visible: part of an object that must show for it to stay.

    Returns:
        uint8 RGB image and the instances.
    """
    image = background(rng, size)
    clutter(rng, image, int(rng.integers(2, 12)))
    side = max(size)
    layers = [decoy(rng, size, 0.35 * side) for _ in range(rng.integers(0, 5))]
    if rng.random() >= empty_rate:
        count = int(rng.integers(counts[0], counts[1] + 1))
        low, high = np.log(lengths)
        sizes = np.exp(low + (high - low) * rng.beta(2, 2, count)) * side
        # Big things stand behind small ones, or little would be seen of the latter.
        for length in sorted(sizes, reverse=True):
            category = int(rng.integers(len(CATEGORIES)))
            layers.append(place_sprite(rng, SPRITES[CATEGORIES[category]], length, size, category + 1))
        if rng.random() < crowd_rate:
            layers.extend(crowd(rng, size))
    layers.extend(bar(rng, size) for _ in range(int(rng.random() < 0.35)))
    instances = compose(image, layers, min_visible)
    return photograph(rng, image), instances


def crowd(rng: np.random.Generator, size: tuple[int, int]) -> list[Layer]:
    """Ten or more tiny sprites of one category huddled together: an ``iscrowd`` region."""
    category = int(rng.integers(len(CATEGORIES)))
    side = max(size)
    centre = rng.uniform(0.2, 0.8, 2) * (size[1], size[0])
    spread = rng.uniform(0.05, 0.1) * side
    layers = []
    for _ in range(int(rng.integers(10, 17))):
        x, y = rng.normal(centre, spread)
        length = rng.uniform(0.05, 0.09) * side
        layer = place_sprite(rng, SPRITES[CATEGORIES[category]], length, size, category + 1, (x, y))
        layer.crowd = True
        layers.append(layer)
    return layers


def crop_of_one(rng: np.random.Generator, side: int) -> tuple[np.ndarray, int]:
    """A ``side x side`` uint8 RGB crop around one object and its category index from 0, for classifiers."""
    category = int(rng.integers(len(CATEGORIES)))
    size = (side, side)
    image = background(rng, size)
    clutter(rng, image, int(rng.integers(0, 5)))
    length = np.exp(rng.uniform(np.log(0.3), np.log(0.95))) * side
    slack = max(0.12 * side, 0.4 * (side - length))
    centre = side / 2 + rng.uniform(-0.5, 0.5, 2) * slack
    layers = [decoy(rng, size, 0.4 * side) for _ in range(rng.integers(0, 3))]
    layers.append(place_sprite(rng, SPRITES[CATEGORIES[category]], length, size, category + 1, tuple(centre)))
    if rng.random() < 0.25:
        layers.append(bar(rng, size))
    compose(image, layers, 0.0)
    return photograph(rng, image), category
