"""The inhabitants of the mini world: ten categories drawn from shape and texture, in five confusable pairs.

A sprite is drawn in its own coordinates (u to the right, v down, the silhouette reaching about +-1) from a *shape*, a
signed field that is positive inside, and a *texture*, a pattern in [0, 1] that mixes two random colours. Colour says
nothing about the category; members of a pair share most of the silhouette or most of the texture.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Field = Callable[[np.ndarray, np.ndarray], np.ndarray]
SUPERSAMPLE = 2


def _smooth(x: np.ndarray, width: float = 0.08) -> np.ndarray:
    """A soft step: 0 below ``-width``, 1 above ``width``."""
    t = np.clip(x / (2 * width) + 0.5, 0, 1)
    return t * t * (3 - 2 * t)


def _ellipse(u, v, a, b, cu=0.0, cv=0.0):
    return (1 - np.sqrt(((u - cu) / a) ** 2 + ((v - cv) / b) ** 2)) * min(a, b)


def _box(u, v, a, b):
    return np.minimum(a - np.abs(u), b - np.abs(v))


# ------------------------------------------------------------------------------------------------ silhouettes


def fish(u, v):
    body = _ellipse(u, v, 0.78, 0.48, cu=-0.2)
    tail = np.minimum(0.95 - u, (u - 0.3) * 0.75 - np.abs(v))
    return np.maximum(body, tail)


def gear(u, v):
    r, angle = np.hypot(u, v), np.arctan2(v, u)
    rim = 0.8 + 0.17 * np.tanh(4 * np.sin(9 * angle)) - r
    return np.minimum(rim, r - 0.26)


def sun(u, v):
    r, angle = np.hypot(u, v), np.arctan2(v, u)
    ray = np.abs(((angle * 9 / (2 * np.pi)) % 1.0) - 0.5) * 2
    return 0.66 + 0.32 * ray - r


def ring(u, v):
    return 0.3 - np.abs(np.hypot(u, v) - 0.68)


def crescent(u, v):
    return np.minimum(0.97 - np.hypot(u, v), np.hypot(u - 0.48, v) - 0.62)


def bottle(u, v):
    body = np.minimum(np.minimum(0.42 - np.abs(u), 0.98 - v), v + 0.2)
    shoulder = np.minimum(0.42 + np.minimum(v + 0.2, 0) * 0.95 - np.abs(u), np.minimum(v + 0.55, -0.1 - v))
    neck = np.minimum(0.15 - np.abs(u), np.minimum(v + 0.98, 0.98 - v))
    return np.maximum(np.maximum(body, shoulder), neck)


def vase(u, v):
    profile = 0.3 + 0.2 * np.sin(2.6 * v + 0.55) + 0.24 * np.clip(-v - 0.55, 0, 1)
    return np.minimum(profile - np.abs(u), 0.98 - np.abs(v))


def square(u, v):
    return 0.83 - (np.abs(u) ** 7 + np.abs(v) ** 7) ** (1 / 7)


# --------------------------------------------------------------------------------------------------- textures


def stripes(u, v):
    return _smooth(np.sin(12 * u), 0.35)


def spots(u, v):
    return _smooth(np.sin(10 * u + 0.8) * np.sin(10 * v + 0.8) - 0.25, 0.3)


def rim_and_bore(u, v):
    return _smooth(np.hypot(u, v) - 0.56, 0.06)


def core(u, v):
    return _smooth(np.hypot(u, v) - 0.5, 0.1)


def rounded_tube(u, v):
    return 1 - np.clip(np.abs(np.hypot(u, v) - 0.62) / 0.34, 0, 1) ** 2


def craters(u, v):
    pit = np.maximum(_ellipse(u, v, 0.13, 0.13, -0.7, -0.15), _ellipse(u, v, 0.1, 0.1, -0.45, 0.6))
    return _smooth(np.maximum(pit, _ellipse(u, v, 0.12, 0.12, -0.4, -0.65)), 0.05)


def label(u, v):
    return _smooth(np.minimum(v - 0.1, 0.65 - v), 0.04)


def bands(u, v):
    return _smooth(np.sin(11 * v), 0.4)


def pips(u, v):
    centres = ((0, 0), (-0.45, -0.45), (0.45, 0.45), (-0.45, 0.45), (0.45, -0.45))
    return _smooth(np.max([_ellipse(u, v, 0.17, 0.17, *c) for c in centres], axis=0), 0.04)


def planks(u, v):
    frame = np.maximum(np.abs(u), np.abs(v)) - 0.6
    brace = 0.13 - np.abs(u - v) / np.sqrt(2)
    return _smooth(np.maximum(frame, brace), 0.04)


#: name -> (silhouette, texture), in the order of the category ids (from 1)
SPRITES: dict[str, tuple[Field, Field]] = {
    "striped fish": (fish, stripes),
    "spotted fish": (fish, spots),
    "gear": (gear, rim_and_bore),
    "sun": (sun, core),
    "ring": (ring, rounded_tube),
    "crescent": (crescent, craters),
    "bottle": (bottle, label),
    "vase": (vase, bands),
    "die": (square, pips),
    "crate": (square, planks),
}
CATEGORIES = tuple(SPRITES)

#: Silhouettes and textures of nobody: clutter that shares its parts with the categories.
DECOYS: tuple[tuple[Field, Field], ...] = tuple(
    (shape, texture)
    for shape in (
        lambda u, v: _ellipse(u, v, 0.95, 0.6),
        lambda u, v: np.minimum(0.6 - v, v * 0.5 + 0.45 - np.abs(u) * 0.9),
        lambda u, v: _box(u, v, 0.95, 0.35),
        lambda u, v: np.maximum(_box(u, v, 0.95, 0.22), _box(u, v, 0.22, 0.95)),
    )
    for texture in (stripes, spots, bands, lambda u, v: 0.5 * _smooth(u, 0.9), planks)
)


def random_colours(rng: np.random.Generator) -> np.ndarray:
    """Two RGB colours ``[2, 3]`` in 0..255 that differ enough in brightness for a pattern to show."""
    while True:
        pair = rng.uniform(15, 245, (2, 3))
        if abs(pair[0].mean() - pair[1].mean()) > 70:
            return pair


def draw(
    sprite: tuple[Field, Field], width: float, height: float, angle: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw one sprite.

    Args:
        sprite: silhouette and texture fields.
        width, height: extent of the unrotated sprite in pixels.
        angle: rotation in radians.
        rng: source of colours, warp and shading.

    Returns:
        colour ``[n, n, 3]`` in 0..255 and opacity ``[n, n]`` in 0..1, float32, on a square just large enough.
    """
    shape, texture = sprite
    n = int(np.ceil(np.hypot(width, height))) + 2
    axis = (np.arange(n * SUPERSAMPLE, dtype=np.float64) + 0.5) / SUPERSAMPLE - n / 2
    x, y = np.meshgrid(axis, axis)
    cos, sin = np.cos(angle), np.sin(angle)
    u = (cos * x + sin * y) / (width / 2)
    v = (-sin * x + cos * y) / (height / 2)
    bend, phase = rng.uniform(-0.09, 0.09), rng.uniform(0, 2 * np.pi)
    u, v = u + bend * np.sin(2.5 * v + phase), v + bend * np.sin(2.5 * u + phase)
    with np.errstate(invalid="ignore"):
        opacity = np.clip(np.nan_to_num(shape(u, v), nan=-1.0) * min(width, height) / 2 * SUPERSAMPLE + 0.5, 0, 1)
        pattern = np.nan_to_num(texture(u, v))
    dark, light = random_colours(rng)
    colour = dark + pattern[..., None] * (light - dark)
    tilt = rng.uniform(0, 2 * np.pi)
    shade = 1 + rng.uniform(0.05, 0.35) * (np.cos(tilt) * x + np.sin(tilt) * y) / (n / 2)
    edge = 0.65 + 0.35 * _smooth(shape(u, v) - 0.06, 0.08)
    colour = colour * (shade * edge)[..., None]
    blocks = (n, SUPERSAMPLE, n, SUPERSAMPLE)
    weight = opacity.reshape(blocks).sum(axis=(1, 3))
    mean = (colour * opacity[..., None]).reshape(*blocks, 3).sum(axis=(1, 3)) / np.maximum(weight, 1e-6)[..., None]
    return mean.astype(np.float32), (weight / SUPERSAMPLE**2).astype(np.float32)
