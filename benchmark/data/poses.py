"""How a drawn person stands: joint angles at random, and the joints in three dimensions that follow from them.

Lengths are in body heights, x to the person's left, y up from the ground, z forwards; a yaw of 0 faces the viewer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmark.data.wardrobe import Look, pick

SIDES = (0, 1)
#: the side that carries the umbrella or the handbag
HOLDING = 1


@dataclass(frozen=True)
class Pose:
    """Angles in radians. Rows: the two sides. Columns: forward flexion and sideways spread (elbow: bend, inwards)."""

    yaw: float
    lean: float
    hips: np.ndarray
    knees: np.ndarray
    shoulders: np.ndarray
    elbows: np.ndarray
    head_yaw: float
    sitting: bool = False


def random_pose(rng: np.random.Generator, yaw: float | None = None, upright: bool = False) -> Pose:
    """Standing, walking, arms up, telephoning, pointing, arms crossed or akimbo, and now and then sitting."""
    action = pick(rng, stand=0.3, walk=0.31, cheer=0.13, phone=0.09, point=0.04, cross=0.04, akimbo=0.05, sit=0.05)
    if upright and action in ("walk", "sit"):
        action = "stand"
    wobble = rng.normal(0, 1, (4, 2))
    hips = np.stack([0.03 * wobble[0], 0.05 + 0.03 * np.abs(wobble[1])], 1)
    knees = np.abs(0.05 * wobble[2])
    shoulders = np.stack([0.12 * wobble[3], rng.uniform(0.05, 0.28, 2)], 1)
    elbows = np.stack([rng.uniform(0.05, 0.6, 2), rng.uniform(-0.1, 0.35, 2)], 1)
    lean, side = rng.normal(0.02, 0.04), int(rng.integers(2))
    if action == "walk":
        phase, stride = rng.uniform(0, 2 * np.pi), rng.uniform(0.25, 0.55)
        swing, lift = np.sin(phase + np.array([0, np.pi])), np.cos(phase + np.array([0, np.pi]))
        hips[:, 0], knees = stride * swing, 0.12 + 1.5 * stride * np.maximum(0, lift)
        shoulders[:, 0], elbows[:, 0] = -0.8 * stride * swing, rng.uniform(0.2, 0.9)
        lean += 0.06
    elif action == "cheer":
        for s in SIDES if rng.random() < 0.55 else (side,):
            shoulders[s], elbows[s] = (rng.uniform(2.4, 3.0), rng.uniform(0.1, 0.7)), (rng.uniform(0, 0.9), 0.0)
    elif action == "phone":
        shoulders[side] = (rng.uniform(0.4, 1.1), 0.25)
        elbows[side] = (rng.uniform(1.4, 2.2), 0.3)
    elif action == "point":
        shoulders[side], elbows[side] = (rng.uniform(0.2, 1.5), rng.uniform(0.9, 1.45)), (0.15, 0.0)
    elif action == "cross":
        shoulders[:], elbows[:] = (0.3, 0.12), (1.5, 1.1)
    elif action == "akimbo":
        shoulders[:], elbows[:] = (-0.25, 0.75), (0.5, 1.5)
    elif action == "sit":
        hips[:, 0], hips[:, 1], knees = rng.uniform(1.35, 1.6), rng.uniform(0.05, 0.25), rng.uniform(1.2, 1.7, 2)
        shoulders[:, 0], elbows[:, 0] = rng.uniform(0.1, 0.5), rng.uniform(0.4, 1.2)
        lean = rng.normal(0, 0.12)
    turned = rng.choice([rng.normal(0, 0.4), rng.normal(np.pi, 0.4), rng.uniform(0, 2 * np.pi)], p=[0.42, 0.22, 0.36])
    return Pose(
        yaw=float(turned if yaw is None else yaw),
        lean=float(lean),
        hips=hips,
        knees=knees,
        shoulders=shoulders,
        elbows=elbows,
        head_yaw=float(rng.normal(0, 0.3)),
        sitting=action == "sit",
    )


def _towards(flex: float, spread: float, side: int) -> np.ndarray:
    """Unit vector of a limb that hangs down at angle 0."""
    outwards = 1 if side else -1
    return np.array((outwards * np.sin(spread), -np.cos(spread) * np.cos(flex), np.cos(spread) * np.sin(flex)))


def skeleton(pose: Pose, look: Look) -> dict[str, np.ndarray]:
    """Joints ``[3]``, for both sides ``[2, 3]``: hip, knee, ankle, toe, shoulder, elbow, hand; neck and head."""
    child, girth = look.child, look.girth
    leg, arm = 0.246 - 0.03 * child, 0.17 - 0.01 * child
    joints: dict[str, list | np.ndarray] = {n: [] for n in ("hip", "knee", "ankle", "toe", "shoulder", "elbow", "hand")}
    spine = 0.8 - 0.035 * child - (2 * leg + 0.035)
    up = np.array((0, np.cos(pose.lean), np.sin(pose.lean)))
    for s in SIDES:
        outwards = 1 if s else -1
        hip = np.array((outwards * 0.048 * girth, 0, 0))
        knee = hip + leg * _towards(*pose.hips[s], s)
        shin = pose.hips[s, 0] - pose.knees[s]
        ankle = knee + leg * _towards(shin, 0.4 * pose.hips[s, 1], s)
        # The heel lifts when the shin leans far back.
        tilt = 0.6 * min(shin + 0.3, 0) if not pose.sitting else 0
        toe = ankle + 0.085 * np.array((outwards * 0.25, np.sin(tilt) - 0.12, np.cos(tilt)))
        flexed, spread, bend, inwards = *pose.shoulders[s], *pose.elbows[s]
        if look.umbrella and s == HOLDING:
            flexed, spread, bend, inwards = 0.5, 0.2, 1.7, 0.1
        shoulder = spine * up + (outwards * (0.098 - 0.012 * child) * (0.6 + 0.4 * girth), 0, 0)
        elbow = shoulder + arm * _towards(flexed, spread, s)
        hand = elbow + 0.155 * _towards(flexed + bend, spread - inwards, s)
        for name, point in zip(joints, (hip, knee, ankle, toe, shoulder, elbow, hand), strict=True):
            joints[name].append(point)
    joints["neck"] = spine * up + (0, 0.02, 0)
    joints["head"] = joints["neck"] + (0.101 + 0.012 * child) * up + (0, 0, 0.012)
    ground = min(np.min(joints["ankle"], axis=0)[1] - 0.035, np.min(joints["toe"], axis=0)[1] - 0.018)
    return {name: np.asarray(points) - (0, ground, 0) for name, points in joints.items()}
