"""The head of a drawn person: an ellipsoid whose hair, face and hat follow from how far it is turned.

Where hair or an eye is, is told by the surface's normal in the head's own axes: ``front`` points out of the face,
``side`` to its left, ``y`` up.
"""

from __future__ import annotations

import numpy as np

from benchmark.data.canvas import HEAD, Canvas
from benchmark.data.wardrobe import Look

EYES = np.array((34, 26, 26))
LIPS = np.array((150, 70, 66)), np.array((96, 44, 42))


class Head:
    """A head at ``centre`` of a canvas, turned by ``yaw`` (0 faces the viewer)."""

    def __init__(self, canvas: Canvas, look: Look, centre: np.ndarray, yaw: float) -> None:
        self.canvas, self.look, self.centre = canvas, look, centre
        self.cos, self.sin = np.cos(yaw), np.sin(yaw)
        self.grow = 1 + 0.32 * look.child
        self.radii = (self.grow * float(np.hypot(0.053 * self.cos, 0.06 * self.sin)), self.grow * 0.07)

    def front(self, x: np.ndarray, z: np.ndarray) -> np.ndarray:
        return z * self.cos + x * self.sin

    def side(self, x: np.ndarray, z: np.ndarray) -> np.ndarray:
        return x * self.cos - z * self.sin

    def shell(self, size: float, colour: np.ndarray, where) -> None:
        """Paint the part of the head, swollen by ``size``, whose normals satisfy ``where(x, y, z)``."""
        self.canvas.ball(self.centre, (self.radii[0] * size, self.radii[1] * size), colour, HEAD, where)

    def draw(self, neck: np.ndarray, detailed: bool) -> None:
        """Neck, head, hair and hat; a face if ``detailed``."""
        look, centre = self.look, self.centre
        self.canvas.limb((neck - (0, 0.02), centre - (0, 0.03)), (0.028, 0.028), look.skin * 0.9)
        if look.hair == "bun":
            knot = centre + self.grow * np.array((-0.055 * self.sin, 0.045))
            self.canvas.ball(knot, (self.radii[0] * 0.5, self.radii[1] * 0.5), look.hair_colour)
        self.canvas.ball(centre, self.radii, look.skin)
        if detailed and not look.blank:
            self.face()
        if look.hair != "bald":
            size = 1.42 if look.hair == "afro" else 1.1
            self.shell(size, look.hair_colour, lambda x, y, z: y > 0.1 + 0.42 * self.front(x, z))
        self.hat()

    def face(self) -> None:
        """Eyes or glasses, mouth and beard."""
        look, size = self.look, 0.22 if self.look.glasses else 0.13

        def eyes(x, y, z):
            return (self.front(x, z) > 0.4) & (np.hypot(np.abs(self.side(x, z)) - 0.36, y - 0.08) < size)

        def mouth(x, y, z):
            return (self.front(x, z) > 0.4) & (np.abs(self.side(x, z)) < 0.26) & (np.abs(y + 0.5) < 0.06)

        def beard(x, y, z):
            around = (np.abs(y + 0.5) > 0.09) | (np.abs(self.side(x, z)) > 0.3)
            return (self.front(x, z) > -0.1) & (y < -0.3) & around

        self.shell(1.0, EYES, eyes)
        self.shell(1.0, LIPS[int(look.skin.mean() <= 120)], mouth)
        if look.beard:
            self.shell(1.03, look.hair_colour, beard)

    def hat(self) -> None:
        look, centre, (rx, ry) = self.look, self.centre, self.radii
        if look.hat in ("beanie", "helmet"):
            self.shell(1.14, look.hat_colour, lambda x, y, z: y > 0.3)
        elif look.hat == "cap":
            self.shell(1.12, look.hat_colour, lambda x, y, z: y > 0.36)
            if self.cos > -0.35:
                start = centre + (0, ry * 0.42 - 0.01 * self.cos)
                tip = centre + (0, ry * 0.42) + self.grow * np.array((0.1 * self.sin, -0.028 * self.cos))
                self.canvas.limb((start, tip), (rx * abs(self.cos) * 0.7 + 0.006, 0.01), look.hat_colour * 0.8, HEAD)
        elif look.hat == "brim":
            self.shell(1.12, look.hat_colour, lambda x, y, z: y > 0.34)
            at, edge = centre + (0, ry * 0.38), np.array((rx * 1.5, 0))
            self.canvas.limb((at - edge, at + edge), (0.012, 0.012), look.hat_colour * 0.92, HEAD)
        elif look.hat == "hood":
            self.shell(1.24, look.top * 0.95, lambda x, y, z: (self.front(x, z) < 0.5) | (y > 0.72))

    def long_hair(self, back: float, towards: float) -> None:
        """Hair that falls on the back, which the body turns to ``back`` (x) and away from the viewer by ``towards``."""
        look, centre, grow = self.look, self.centre, self.grow
        if look.hair == "tail":
            knot = centre + grow * np.array((0.065 * back, 0.02 + 0.02 * towards))
            self.canvas.limb((knot, knot + (0.025 * back, -0.13)), (0.024, 0.012), look.hair_colour)
            return
        half = np.array((grow * 0.056, 0))
        top, low = centre + (0, 0.03), centre + (0.025 * back, -0.13)
        ends = (top - half, top + half, low + 1.05 * half, low - (0, 0.025), low - 1.05 * half)
        self.canvas.blob(np.array(ends), look.hair_colour)
