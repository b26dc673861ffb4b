"""A supersampled canvas for drawn things: shaded limbs, blobs and balls, and whose each pixel is.

Coordinates are in units of the thing drawn (x to the right, y up, the ground at 0); light falls from ``light`` in
[-1, 1], left to right, and from above. Polygons are filled in fixed point, so that nothing depends on rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

Colour = tuple[float, float, float] | np.ndarray
#: Whose a stroke is: the body of a person, its head, or a thing (bag, umbrella, furniture).
BODY, HEAD, THING = "body", "head", "thing"
_OWN, _FOREIGN = 255, 128
_SHIFT = 4
_ONE = 1 << _SHIFT
_HALF_TURN = np.linspace(-np.pi / 2, np.pi / 2, 7)


@dataclass
class Figure:
    """A drawn thing: pixels of an image patch and the point of it that stands on the ground.

    ``colour`` ``[h, w, 3]`` in 0..255 and ``opacity`` ``[h, w]`` in 0..1 are float32. ``body`` and ``head`` are the
    silhouettes of the person and of its head as if nothing were in front; ``top`` is the part of the body that its own
    things leave uncovered. ``foot`` is (x, y) in pixels of the patch.
    """

    colour: np.ndarray
    opacity: np.ndarray
    body: np.ndarray
    head: np.ndarray
    top: np.ndarray
    foot: tuple[int, int]


def rounded(points: np.ndarray, rounds: int = 2) -> np.ndarray:
    """Cut the corners of a closed polygon ``[n, 2]`` ``rounds`` times, which makes a smooth outline of it."""
    for _ in range(rounds):
        following = np.roll(points, -1, axis=0)
        points = np.stack([0.75 * points + 0.25 * following, 0.25 * points + 0.75 * following], 1).reshape(-1, 2)
    return points


class Canvas:
    """Paint to draw on. ``reach`` is (left, bottom, right, top) in units, ``scale`` the pixels to a unit."""

    def __init__(self, reach: tuple[float, float, float, float], scale: float, light: float = 0.0) -> None:
        left, bottom, right, top = reach
        size = (top - bottom) * scale
        self.factor = 3 if size > 70 else 4 if size > 35 else 6
        self.k, self.left, self.top, self.light = scale * self.factor, left, top, light
        self.width, self.height = int(np.ceil((right - left) * scale)) + 1, int(np.ceil(size)) + 1
        shape = (self.height * self.factor, self.width * self.factor)
        # red, green, blue, whose is on top
        self.paint = np.zeros((*shape, 4), np.uint8)
        # body, head: in front or not
        self.parts = np.zeros((*shape, 3), np.uint8)

    def pixels(self, points: np.ndarray) -> np.ndarray:
        """Points ``[..., 2]`` in units as fixed-point pixel coordinates of the canvas."""
        xy = (np.asarray(points, float) - (self.left, self.top)) * (self.k * _ONE, -self.k * _ONE)
        return np.rint(xy).astype(np.int32)

    def _fill(self, polygon: np.ndarray, colour: np.ndarray, part: str, mark: bool) -> None:
        # OpenCV clips colours to 0..255
        paint = (*colour.tolist(), _FOREIGN if part == THING else _OWN)
        cv2.fillPoly(self.paint, [polygon], paint, cv2.LINE_8, _SHIFT)
        if mark and part != THING:
            cv2.fillPoly(self.parts, [polygon], (255, 255 * (part == HEAD), 0), cv2.LINE_8, _SHIFT)

    def fill(self, points: np.ndarray, colour: Colour, part: str = BODY) -> None:
        """A plain polygon ``[n, 2]``."""
        self._fill(self.pixels(points), np.asarray(colour, float), part, True)

    def limb(self, points: np.ndarray, radii: tuple, colour: Colour, part: str = BODY) -> None:
        """A bent tube along ``points`` ``[n, 2]``: dark at its rim, lit where the light comes from."""
        points, radii, colour = np.asarray(points, float), np.asarray(radii, float)[:, None], np.asarray(colour, float)
        dx, dy = (points[1:] - points[:-1]).T
        arc = np.arctan2(dy, dx)[:, None] + _HALF_TURN
        cap = np.concatenate([np.cos(arc)[..., None], np.sin(arc)[..., None]], axis=-1)
        # a segment's outline: half a turn around its start, half a turn around its end
        ends = np.concatenate([np.repeat(points[:-1, None], 7, 1), np.repeat(points[1:, None], 7, 1)], axis=1)
        radius = np.concatenate([np.repeat(radii[:-1, None], 7, 1), np.repeat(radii[1:, None], 7, 1)], axis=1)
        around, shift = radius * np.concatenate([-cap, cap], axis=1), radius * (self.light, 0.35)
        for grow, move, tone in ((1, 0, 0.7), (0.8, 0.16, 1.0), (0.4, 0.38, 1.1)):
            for outline in self.pixels(ends + grow * around + move * shift):
                self._fill(outline, colour * tone, part, grow == 1)

    def blob(self, points: np.ndarray, colour: Colour, part: str = BODY, rounds: int = 2) -> None:
        """A smooth polygon with a dark rim and a lit side."""
        outline, colour = rounded(np.asarray(points, float), rounds), np.asarray(colour, float)
        centre = (outline.max(axis=0) + outline.min(axis=0)) / 2
        half = np.minimum(*(outline.max(axis=0) - outline.min(axis=0)) / 2)
        shift = np.array([self.light, 0.3]) * half
        for grow, move, tone in ((1, 0, 0.76), (0.9, 0.05, 1.0), (0.6, 0.22, 1.06)):
            polygon = self.pixels(centre + (outline - centre) * grow + shift * move)
            self._fill(polygon, colour * tone, part, grow == 1)

    def pattern(self, points: np.ndarray, of: Callable[[np.ndarray, np.ndarray], np.ndarray], colour: Colour) -> None:
        """Dye what is painted inside a polygon where ``of(x, y)`` is true, keeping its light and shade."""
        mask = np.zeros(self.paint.shape[:2], np.uint8)
        polygon = self.pixels(rounded(np.asarray(points, float)))
        cv2.fillPoly(mask, [polygon], 1, cv2.LINE_8, _SHIFT)
        x, y, w, h = cv2.boundingRect(polygon >> _SHIFT)
        rows, cols = slice(max(y, 0), y + h), slice(max(x, 0), x + w)
        region = self.paint[rows, cols, :3]
        if not region.size:
            return
        yy, xx = np.mgrid[0 : region.shape[0], 0 : region.shape[1]].astype(np.float32)
        u, v = self.left + (xx + cols.start) / self.k, self.top - (yy + rows.start) / self.k
        chosen = (mask[rows, cols] > 0) & of(u, v)
        tone = region[chosen].astype(np.float32).mean(axis=1, keepdims=True)
        if len(tone):
            region[chosen] = np.clip(np.asarray(colour) * tone / max(np.percentile(tone, 70), 1), 0, 255)

    def ball(
        self,
        centre: np.ndarray,
        radii: tuple[float, float],
        colour: Colour,
        part: str = HEAD,
        where: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray] | None = None,
    ) -> None:
        """The part of an ellipsoid whose surface normals satisfy ``where(nx, ny, nz)`` (nz towards the viewer)."""
        (cx, cy), (rx, ry) = centre, radii
        x0, x1 = (int(np.floor((cx + s * rx - self.left) * self.k)) for s in (-1, 1))
        y0, y1 = (int(np.floor((self.top - cy - s * ry) * self.k)) for s in (1, -1))
        x0, y0 = max(x0, 0), max(y0, 0)
        paint, parts = self.paint[y0 : y1 + 2, x0 : x1 + 2], self.parts[y0 : y1 + 2, x0 : x1 + 2]
        if not paint.size:
            return
        nx = (self.left + (np.arange(x0, x0 + paint.shape[1]) + 0.5) / self.k - cx) / rx
        ny = (self.top - (np.arange(y0, y0 + paint.shape[0]) + 0.5) / self.k - cy) / ry
        nx, ny = np.broadcast_arrays(nx[None].astype(np.float32), ny[:, None].astype(np.float32))
        depth = 1 - nx**2 - ny**2
        chosen, nz = depth >= 0, np.sqrt(np.maximum(depth, 0))
        if where is not None:
            chosen = chosen & where(nx, ny, nz)
        tone = 0.72 + 0.33 * nz + 0.1 * ny + 0.14 * self.light * nx
        paint[chosen, :3] = np.clip(np.asarray(colour) * tone[chosen][:, None], 0, 255)
        paint[chosen, 3] = _FOREIGN if part == THING else _OWN
        if part != THING:
            parts[chosen, 0] = 255
            if part == HEAD:
                parts[chosen, 1] = 255

    def figure(self, foot: tuple[float, float] = (0.0, 0.0)) -> Figure:
        """What was drawn, at its final size and cropped to what is there; ``foot`` in units."""
        f, seen = self.factor, self.paint[..., 3] > 0
        rows, cols = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
        if not len(rows):
            rows = cols = np.zeros(1, int)
        top, left, bottom, right = rows[0] // f, cols[0] // f, rows[-1] // f + 1, cols[-1] // f + 1
        crop = (slice(top * f, bottom * f), slice(left * f, right * f))
        paint, owner = self.paint[crop][..., :3], self.paint[crop][..., 3]
        own, painted = (where * np.uint8(255) for where in (owner == _OWN, owner > 0))
        body, head = np.maximum(self.parts[crop][..., 0], own), self.parts[crop][..., 1]
        masks = np.dstack([body, head, own, painted]).astype(np.float32)
        size = (right - left, bottom - top)
        # Nothing was painted where nothing is: the mean colour is already multiplied by the opacity.
        colour = cv2.resize(paint.astype(np.float32), size, interpolation=cv2.INTER_AREA)
        body, head, own, opacity = np.moveaxis(cv2.resize(masks, size, interpolation=cv2.INTER_AREA) / 255, 2, 0)
        # a head of a pixel or two may fill none of them by half
        head = head > min(0.5, 0.6 * head.max())
        scale = self.k / f
        return Figure(
            colour=colour / np.maximum(opacity, 1e-6)[..., None],
            opacity=opacity,
            body=(body > 0.5) | head,
            head=head,
            top=own > 0.5,
            foot=(round((foot[0] - self.left) * scale - left), round((self.top - foot[1]) * scale - top)),
        )
