"""Empty places for a crowd: street, park, hall, square and night, with a ground in perspective."""

from __future__ import annotations

import cv2
import numpy as np

from benchmark.data.scene import background
from benchmark.data.wardrobe import cloth, pick


def _gradient(image: np.ndarray, top: int, bottom: int, first: np.ndarray, last: np.ndarray) -> None:
    """Fill the rows from ``top`` to ``bottom`` with a vertical gradient between two colours."""
    top, bottom = max(top, 0), min(bottom, len(image))
    if top < bottom:
        t = np.linspace(0, 1, bottom - top, dtype=np.float32)[:, None, None]
        image[top:bottom] = np.clip((1 - t) * np.asarray(first) + t * np.asarray(last), 0, 255)


def _houses(rng: np.random.Generator, image: np.ndarray, horizon: int) -> None:
    width = image.shape[1]
    x = int(rng.uniform(-40, 0))
    while x < width:
        w, tall = int(rng.uniform(30, 95)), int(rng.uniform(0.3, 1.3) * max(horizon, 20))
        colour = 0.5 * cloth(rng) + 0.5 * np.array((150, 142, 132))
        cv2.rectangle(image, (x, horizon - tall), (x + w, horizon), colour.tolist(), -1)
        window = (colour * rng.uniform(0.45, 1.35)).tolist()
        step_x, step_y = int(rng.integers(7, 14)), int(rng.integers(9, 16))
        for wy in range(horizon - tall + 4, horizon - 8, step_y):
            for wx in range(x + 4, x + w - 5, step_x):
                cv2.rectangle(image, (wx, wy), (wx + step_x // 2, wy + step_y // 2), window, -1)
        # shops: a dark strip at street level
        cv2.rectangle(image, (x, horizon - 9), (x + w, horizon), (colour * rng.uniform(0.3, 0.9)).tolist(), -1)
        x += w + int(rng.uniform(0, 12) if rng.random() < 0.3 else 0)


def _trees(rng: np.random.Generator, image: np.ndarray, horizon: int) -> None:
    width = image.shape[1]
    for _ in range(int(rng.integers(25, 60))):
        x, r = int(rng.uniform(-10, width + 10)), int(rng.uniform(0.15, 0.5) * max(horizon, 24)) + 2
        colour = np.array((70, 100, 56)) * rng.uniform(0.5, 1.35) + rng.normal(0, 8, 3)
        y = horizon - int(rng.uniform(0.2, 0.9) * r)
        cv2.ellipse(image, (x, y), (r, int(r * 0.8)), 0, 0, 360, colour.tolist(), -1, cv2.LINE_AA)


def _wall(rng: np.random.Generator, image: np.ndarray, horizon: int) -> None:
    """The end of a hall: panels, doorways and lamps."""
    width, colour = image.shape[1], 0.5 * cloth(rng) + np.array((80, 78, 72))
    base = horizon + 3
    _gradient(image, 0, base, colour * 0.75, colour * 1.05)
    step = int(rng.integers(22, 70))
    for x in range(int(rng.integers(0, step)), width, step):
        if rng.random() < 0.5:
            panel = (x + 3, int(base * rng.uniform(0.1, 0.5)), x + step - 4, base - int(rng.uniform(0, 8)))
            cv2.rectangle(image, panel[:2], panel[2:], (0.6 * cloth(rng) + 0.3 * colour).tolist(), -1)
        cv2.line(image, (x, 0), (x, base), (colour * 0.7).tolist(), int(rng.integers(1, 3)), cv2.LINE_AA)
    for x in range(int(rng.integers(0, 40)), width, int(rng.integers(30, 60))):
        cv2.ellipse(image, (x, int(base * 0.08)), (int(rng.integers(4, 12)), 2), 0, 0, 360, (250, 246, 226), -1)


def _night(rng: np.random.Generator, image: np.ndarray, horizon: int) -> None:
    """A dark place with coloured lights."""
    _gradient(image, 0, horizon + 2, np.array((26, 24, 38)), np.array((60, 50, 70)))
    height, width = image.shape[:2]
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    for _ in range(int(rng.integers(3, 9))):
        cx, cy, r = rng.uniform(0, width), rng.uniform(-0.1, 0.9) * max(horizon, 30), rng.uniform(6, 40)
        glow = np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / r**2)[..., None]
        image[:] = np.clip(image + glow * (cloth(rng) * 0.5 + 90), 0, 255)


def _floor(rng: np.random.Generator, image: np.ndarray, horizon: int, colour: np.ndarray) -> None:
    """Ground that darkens towards the viewer, with joints or stripes that meet at the horizon."""
    height, width = image.shape[:2]
    _gradient(image, horizon, height, colour * rng.uniform(0.95, 1.15), colour * rng.uniform(0.7, 1.0))
    if rng.random() < 0.6:
        line = (colour * rng.choice([0.75, 0.88, 1.15])).tolist()
        vanishing, step = rng.uniform(0, width), rng.uniform(14, 60)
        far = max(horizon, 0)
        for x in np.arange(-6 * width, 7 * width, step * 4):
            t = (far - horizon) / max(height - horizon, 1)
            start = (round(vanishing + t * (x - vanishing)), far)
            cv2.line(image, start, (round(x), height), line, 1, cv2.LINE_AA)
        depth, gain = rng.uniform(0.1, 0.5), height - horizon
        for k in range(1, 40):
            y = horizon + gain / (depth * k)
            if far < y < height and gain / (depth * k * k) > 1.5:
                cv2.line(image, (0, round(y)), (width, round(y)), line, 1, cv2.LINE_AA)


def backdrop(rng: np.random.Generator, size: tuple[int, int], horizon: int) -> np.ndarray:
    """An empty place whose ground ends at row ``horizon`` (it may lie above the image).

    Returns:
        float32 RGB ``[H, W, 3]`` in about 0..255.
    """
    height, width = size
    kind = pick(rng, street=0.32, park=0.18, hall=0.22, square=0.16, night=0.12)
    image = np.zeros((height, width, 3), np.float32)
    sky = (
        np.array((150, 180, 216)) * rng.uniform(0.6, 1.15) if rng.random() < 0.6 else np.full(3, rng.uniform(130, 225))
    )
    _gradient(image, 0, horizon + 1, sky, sky * 0.6 + 96)
    grey = np.clip(rng.uniform(80, 175) + rng.normal(0, 7, 3), 50, 215)
    ground = {
        "street": grey,
        "park": np.array((104, 128, 74)) * rng.uniform(0.7, 1.2),
        "hall": 0.4 * cloth(rng) + 0.6 * grey,
        "square": np.array((188, 176, 156)) * rng.uniform(0.75, 1.2),
        "night": grey * 0.4,
    }[kind]
    if kind == "street":
        _houses(rng, image, horizon)
    elif kind == "hall":
        _wall(rng, image, horizon)
    elif kind == "night":
        _night(rng, image, horizon)
    elif kind == "park" or rng.random() < 0.5:
        _trees(rng, image, horizon)
    else:
        _houses(rng, image, horizon)
    _floor(rng, image, horizon, ground)
    noise = background(rng, size)
    image = image + np.float32(rng.uniform(0.12, 0.4)) * (noise - noise.mean(axis=(0, 1)))
    if rng.random() < 0.6:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.5, 1.6))
    return image
