"""ICD's formulas in plain numpy, instance by instance, head by head, cell by cell."""

from __future__ import annotations

import math

import numpy as np


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max())
    return e / e.sum()


def normalised(x: np.ndarray) -> np.ndarray:
    return (x - x.mean()) / math.sqrt(x.var() + 1e-5)


def linear(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
    return x @ weight.T + (0 if bias is None else bias)


def mlp(x: np.ndarray, layers: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    for weight, bias in layers[:-1]:
        x = np.maximum(linear(x, weight, bias), 0)
    return linear(x, *layers[-1])


def sines(share: float, channels: int) -> list[float]:
    """Sines first, then cosines, of falling frequency."""
    angles = [2 * math.pi * share / 10000 ** (2 * k / channels) for k in range(channels // 2)]
    return [math.sin(a) for a in angles] + [math.cos(a) for a in angles]


def descriptor(label: int, box: list, point: list, image: tuple[int, int], classes: int) -> list[float]:
    """Box and point in shares of an image of (height, width)."""
    sides = (box[2] - box[0]) * image[1], (box[3] - box[1]) * image[0]
    sizes = []
    for side in sides:
        size = 0 if side < 64 else 1 if side < 128 else 2 if side < 256 else 3 if side < 512 else 4
        sizes += [float(size == k) for k in range(5)]
    return [float(label == k) for k in range(classes)] + sines(point[0], 128) + sines(point[1], 128) + sizes


def place_embedding(
    levels: list[tuple[int, int, int]], image: tuple[int, int], channels: int
) -> tuple[np.ndarray, np.ndarray]:
    """Of the cells of levels (height, width, stride): ``[P, C]``, and which are not padding."""
    rows, inside = [], []
    for height, width, stride in levels:
        valid_rows, valid_columns = math.ceil(image[0] / stride), math.ceil(image[1] / stride)
        for y in range(height):
            for x in range(width):
                shares = min(y + 1, valid_rows) / valid_rows, min(x + 1, valid_columns) / valid_columns
                rows.append(sines(shares[0], channels // 2) + sines(shares[1], channels // 2))
                inside.append(y < valid_rows and x < valid_columns)
    return np.array(rows), np.array(inside)


def attention(query: np.ndarray, keys: np.ndarray, heads: int, inside: np.ndarray) -> np.ndarray:
    """One projected query ``[C]`` over projected keys ``[P, C]``: ``[h, P]``."""
    width, result = len(query) // heads, []
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        logits = np.array([query[part] @ key[part] / math.sqrt(width) for key in keys])
        result.append(softmax(np.where(inside, logits, -1e30)))
    return np.array(result)


def value_distance(student: np.ndarray, teacher: np.ndarray, weights: np.ndarray) -> float:
    """L_icd without its weight: values ``[N, h, P, d]``, M ``[N, h, P]``."""
    images, heads, cells, width = student.shape
    total = 0.0
    for n in range(images):
        for h in range(heads):
            squares, mass = np.zeros(width), 0.0
            for p in range(cells):
                squares += weights[n, h, p] * (normalised(student[n, h, p]) - normalised(teacher[n, h, p])) ** 2
                mass += weights[n, h, p]
            total += (squares / mass).sum() if mass else 0.0
    return total / (images * heads * width)
