"""One drawn person: a jointed body in three dimensions, turned by an angle, seen from slightly above, and dressed.

Coordinates are those of :mod:`benchmark.data.poses`; a part is drawn after those that it hides.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmark.data.canvas import THING, Canvas, Figure
from benchmark.data.heads import Head
from benchmark.data.poses import HOLDING, SIDES, Pose, skeleton
from benchmark.data.wardrobe import Look

PITCH = 0.13


class _Person:
    """Draws one person on a canvas, part by part, the far parts first."""

    def __init__(self, look: Look, pose: Pose, scale: float, light: float) -> None:
        self.look, self.pose = look, pose
        self.canvas = Canvas((-0.8, -0.2, 0.8, 1.62 if look.umbrella else 1.32), scale, light)
        self.limb, self.blob, self.ball = self.canvas.limb, self.canvas.blob, self.canvas.ball
        self.cos, self.sin = np.cos(pose.yaw), np.sin(pose.yaw)
        space = skeleton(pose, look)
        self.at = {name: self.project(points) for name, points in space.items()}
        self.depth = {name: self.depths(points) for name, points in space.items()}
        self.coat = look.bottom == "coat" and not pose.sitting
        self.skirt = look.bottom in ("skirt", "dress") and not pose.sitting
        self.detailed = scale > 26
        self.head = Head(self.canvas, look, self.at["head"], pose.yaw + pose.head_yaw)

    def depths(self, points: np.ndarray) -> np.ndarray:
        return points[..., 2] * self.cos - points[..., 0] * self.sin

    def project(self, points: np.ndarray) -> np.ndarray:
        """Joints ``[..., 3]`` to the picture ``[..., 2]``; what is nearer stands a little lower."""
        x = points[..., 0] * self.cos + points[..., 2] * self.sin
        return np.stack([x, points[..., 1] - PITCH * self.depths(points)], -1)

    def width(self, across: float, along: float) -> float:
        """Half the width seen of an elliptic cross-section."""
        return float(np.hypot(across * self.cos, along * self.sin))

    def leg(self, s: int) -> None:
        look, g = self.look, self.look.girth
        hip, knee, ankle, toe = (self.at[n][s] for n in ("hip", "knee", "ankle", "toe"))
        self.limb((ankle - (0, 0.01), toe), (0.026, 0.02), look.shoes)
        if look.bottom == "shorts":
            self.limb((knee, ankle), (0.036 * g, 0.022), look.legs)
            self.limb((hip, knee), (0.062 * g, 0.046 * g), look.bottom_colour)
        elif self.skirt:
            self.limb((hip, knee, ankle), (0.06 * g, 0.04 * g, 0.022), look.legs)
        else:
            self.limb((hip, knee, ankle), (0.062 * g, 0.045 * g, 0.034), look.bottom_colour)

    def arm(self, s: int) -> None:
        look, g = self.look, 0.6 + 0.4 * self.look.girth
        shoulder, elbow, hand = (self.at[n][s] for n in ("shoulder", "elbow", "hand"))
        thick = 1.2 if look.bottom == "coat" else 1.0
        sleeve = look.top * 0.96
        tip = hand + 0.13 * (hand - elbow)
        self.limb((shoulder, elbow, hand, tip), (0.033 * g, 0.027 * g, 0.02, 0.021), look.skin)
        if look.sleeves > 0.6:
            cuff = elbow + 0.88 * (hand - elbow)
            self.limb((shoulder, elbow, cuff), (0.04 * g * thick, 0.034 * g * thick, 0.027 * thick), sleeve)
        elif look.sleeves:
            end = shoulder + 1.5 * look.sleeves * (elbow - shoulder)
            self.limb((shoulder, end), (0.04 * g, 0.036 * g), sleeve)
        if look.bag == "hand" and s == HOLDING and hand[1] < 0.62:
            self.handbag(hand)

    def handbag(self, hand: np.ndarray) -> None:
        half = self.width(0.04, 0.085)
        x, y = hand - (0, 0.05)
        for dx in (-half * 0.6, half * 0.6):
            self.limb((hand, (x + dx, y)), (0.006, 0.006), self.look.bag_colour * 0.7, THING)
        box = np.array(((x - half, y), (x + half, y), (x + half * 1.15, y - 0.14), (x - half * 1.15, y - 0.14)))
        self.blob(box, self.look.bag_colour, THING, rounds=1)

    def trunk(self) -> np.ndarray:
        """Outline of the torso ``[n, 2]``."""
        g = self.look.girth
        hip, top = self.at["hip"].mean(axis=0), self.at["shoulder"].mean(axis=0)
        belly = 0.09 * max(g - 1, 0)
        profile = (
            (1.07, self.width(0.04, 0.035)),
            (1.02, self.width(0.118 * (0.6 + 0.4 * g), 0.06)),
            (0.8, self.width(0.112 * (0.5 + 0.5 * g), 0.075)),
            (0.4, self.width(0.088 * g + belly, 0.068 + belly)),
            (0.05, self.width(0.1 * g, 0.074 * g)),
            (-0.2, self.width(0.094 * g, 0.066 * g)),
        )
        up = top - hip
        across = np.array((up[1], -up[0])) / np.linalg.norm(up)
        right = [hip + t * up + w * across for t, w in profile]
        left = [hip + t * up - w * across for t, w in profile]
        return np.array(right + left[::-1])

    def torso(self) -> None:
        look, outline = self.look, self.trunk()
        if not self.coat and not self.skirt:
            self.limb(self.at["hip"], (0.06 * look.girth, 0.06 * look.girth), look.bottom_colour)
        self.blob(outline, look.top)
        self.dye(outline)

    def dye(self, outline: np.ndarray) -> None:
        look, middle = self.look, self.at["shoulder"].mean(axis=0)
        period, facing = 0.075, self.cos
        front = self.project(np.array((0, middle[1], 0.07)))[0]
        patterns: dict[str, Callable] = {
            "stripes": lambda u, v: np.mod(v, period) < 0.45 * period,
            "bars": lambda u, v: np.mod(u, 0.06) < 0.025,
            "checks": lambda u, v: (np.mod(u, 0.07) < 0.035) ^ (np.mod(v, 0.07) < 0.035),
            "dots": lambda u, v: np.hypot(np.mod(u, 0.06) - 0.03, np.mod(v, 0.06) - 0.03) < 0.018,
            "panel": lambda u, v: np.abs(v - middle[1] + 0.11) < 0.05,
            "jacket": lambda u, v: (np.abs(u - front) < 0.026 * (1.2 + (v - middle[1]) * 2)) & (facing > 0.15),
        }
        if look.pattern in patterns:
            self.canvas.pattern(outline, patterns[look.pattern], look.second)

    def hem(self, start: float, length: float, flare: float, colour: np.ndarray) -> np.ndarray:
        """A skirt or coat that hangs from ``start`` of the spine (0: hips, 1: shoulders) to part of the thigh."""
        g = self.look.girth
        hip, top = self.at["hip"].mean(axis=0), self.at["shoulder"].mean(axis=0)
        knees = self.at["knee"]
        at = hip + start * (top - hip)
        bottom = hip + length * (knees.mean(axis=0) - hip)
        half = self.width(0.1 * g, 0.08 * g)
        wide = max(np.ptp(hip[0] + length * (knees[:, 0] - hip[0])) / 2 + 0.055 * g, half) + flare
        waist = half * (1.08 if start > 0.5 else 0.88)
        outline = np.array(
            (
                (at[0] - waist, at[1]),
                (at[0] + waist, at[1]),
                (hip[0] + half * 1.12, hip[1]),
                (bottom[0] + wide, bottom[1]),
                (bottom[0], bottom[1] - 0.01),
                (bottom[0] - wide, bottom[1]),
                (hip[0] - half * 1.12, hip[1]),
            )
        )
        self.blob(outline, colour, rounds=1)
        return outline

    def backpack(self) -> None:
        x, y = self.project(np.array((0, self.at["shoulder"][:, 1].mean() - 0.125, -0.1)))
        half = self.width(0.085, 0.05)
        box = np.array(((-half, -0.13), (half, -0.13), (half * 0.9, 0.13), (-half * 0.9, 0.13))) + (x, y)
        self.blob(box, self.look.bag_colour, THING, rounds=1)
        if self.detailed:
            flap = np.stack([box[:, 0], y - np.array((0.1, 0.1, 0.02, 0.02))], 1)
            self.blob(flap, self.look.bag_colour * 0.85, THING, rounds=1)

    def straps(self) -> None:
        for dx in (-0.06, 0.06):
            a = self.project(np.array((dx, self.at["shoulder"][:, 1].mean() + 0.02, 0.05)))
            self.limb((a, a - (0, 0.15)), (0.011, 0.011), self.look.bag_colour * 0.8, THING)

    def shoulder_bag(self) -> None:
        start, hip = self.at["shoulder"][0], self.at["hip"][1]
        end = hip + (0.06 * self.cos, 0.02)
        self.limb((start, end), (0.009, 0.009), self.look.bag_colour * 0.7, THING)
        half = self.width(0.055, 0.07)
        box = np.array(((-half, 0.03), (half, 0.03), (half, -0.1), (-half, -0.1))) + end
        self.blob(box, self.look.bag_colour, THING, rounds=1)

    def umbrella(self) -> None:
        look = self.look
        x, y = self.at["hand"][HOLDING]
        tip = (x * 0.5, 1.28)
        self.limb(((x, y), tip), (0.008, 0.008), (60, 60, 64), THING)
        arc, across = np.linspace(0, np.pi, 17), np.linspace(-0.42, 0.42, 21)[1:-1]
        dome = np.stack([0.42 * np.cos(arc), 0.24 * np.sin(arc)], 1)
        scallop = np.stack([across, 0.02 * np.abs(np.sin(2 * np.pi * (across / 0.42 + 1)))], 1)
        self.blob(np.concatenate([dome, scallop]) + (tip[0], tip[1] - 0.1), look.bag_colour, THING, rounds=0)

    def seat(self) -> None:
        """A stool under somebody who sits."""
        (x, y), half = self.at["hip"].mean(axis=0), 0.11
        y -= 0.055
        for dx in (-half * 0.8, half * 0.8):
            self.limb(((x + dx, 0.0), (x + dx, y)), (0.014, 0.014), (70, 64, 60), THING)
        self.limb(((x - half, y), (x + half, y)), (0.022, 0.022), (126, 98, 70), THING)

    def draw(self) -> Figure:
        look, steps = self.look, []
        chest = self.depth["shoulder"].mean()
        if self.pose.sitting:
            self.seat()
        for s in sorted(SIDES, key=lambda s: self.depth["knee"][s] + self.depth["ankle"][s]):
            self.leg(s)
        for s in SIDES:
            near = self.depth["elbow"][s] + self.depth["hand"][s] > 2 * chest - 0.02
            raised = near and self.at["hand"][s, 1] > self.at["neck"][1]
            steps.append((4.0 if raised else 2.0 if near else -2.0, lambda s=s: self.arm(s)))
        if self.pose.sitting:
            # Thighs point at the viewer or lie beside the trunk: they come after it.
            for s in sorted(SIDES, key=lambda s: self.depth["knee"][s]):
                if self.cos > -0.2:
                    steps.append((1.0, lambda s=s: self.leg(s)))
        steps.append((0.0, self.torso))
        if self.skirt:
            long = 0.75 if look.girth < 1 else 1.05
            colour = look.top if look.bottom == "dress" else look.bottom_colour
            steps.append((0.3, lambda: self.hem(0.3, long, 0.035, colour)))
        if self.coat:
            steps.append((0.5, lambda: self.dye(self.hem(0.75, 0.95, 0.01, look.top))))
        steps.append((3.0, lambda: self.head.draw(self.at["neck"], self.detailed)))
        if look.hair in ("long", "tail") and look.hat != "hood":
            steps.append((-0.5 if self.cos > 0.25 else 3.5, lambda: self.head.long_hair(-self.sin, self.cos)))
        if look.bag == "backpack":
            steps.append((2.5 if self.cos < 0.1 else -3.0, self.backpack))
            if self.cos > 0.3:
                steps.append((1.5, self.straps))
        if look.bag == "shoulder":
            steps.append((1.6, self.shoulder_bag))
        if look.umbrella:
            steps.append((5.0, self.umbrella))
        for _, step in sorted(steps, key=lambda item: item[0]):
            step()
        return self.canvas.figure()


def draw_person(look: Look, pose: Pose, height: float, light: float = 0.0) -> Figure:
    """A person of ``height`` pixels when upright; light falls from ``light`` in [-1, 1]."""
    return _Person(look, pose, height, light).draw()
