"""How the cost of PGD's maps and step grows with objects, images, the image's side and levels: time and memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import log
from typing import Any

import numpy as np
import torch
from scipy.optimize import nnls

from benchmark.cost import peak_memory
from pgd.dense import View
from tools.steps import QUICK, Subject, batch_of, spread, step_of
from tools.timed.extent import Extent
from tools.timed.turns import Times, Work, in_turns

PARTS = ("maps", "step", "student")
#: exponents that are tried
EXPONENTS = np.arange(0.05, 3.0, 0.01)
#: what costs less than this many times more in the end than at the beginning does not grow
GROWN = 1.1


def exponent(values: Sequence[float], costs: Sequence[float]) -> float | None:
    """p of the curve a + b n^p, a and b not negative, that goes through costs with the least relative error.

    Of the costs themselves a straight line in double-logarithmic axes would give less: there is a part that does not
    depend on n. None where costs hardly grow.
    """
    n, cost = np.asarray(values, float) / max(values), np.asarray(costs, float)
    if cost[-1] < GROWN * cost[0]:
        return None

    def error(p: float) -> float:
        return nnls(np.stack((1 / cost, n**p / cost), axis=1), np.ones_like(cost))[1]

    return round(float(min(EXPONENTS, key=error)), 2)


def end_slope(values: Sequence[float], costs: Sequence[float]) -> float:
    """By which power of n the whole cost goes between the last two values."""
    return round(log(costs[-1] / costs[-2]) / log(values[-1] / values[-2]), 2)


def said_of(values: Sequence[int], by_turn: Sequence[Sequence[float]]) -> dict[str, Any]:
    """The exponent of the medians over turns, with the quartiles of the turns' own, and the slope at the end.

    Args:
        values: n.
        by_turn: for each n the costs of all turns.
    """
    middle = [float(np.median(costs)) for costs in by_turn]
    own = [p for p in (exponent(values, costs) for costs in zip(*by_turn, strict=True)) if p is not None]
    found: dict[str, Any] = {"exponent": exponent(values, middle), "end slope": end_slope(values, middle)}
    if len(own) > 1:
        found |= {"turns": spread(own)}
    return found


def trained(subject: Subject, loss: Callable, batch: tuple) -> None:
    """Forward, backward, optimiser."""
    total, _ = subject.model.parse_losses(loss(*batch))
    subject.optimizer.zero_grad()
    total.backward()
    subject.optimizer.step()


def parts_of(subject: Subject, sizes: Mapping[str, int]) -> dict[str, Work]:
    """PGD's maps, its step, and the step of the student alone, on images of these sizes."""
    scale = replace(QUICK, image=(sizes["side"],) * 2, padded=(sizes["side"],) * 2)
    batch = batch_of(sizes["images"], scale, "cpu", sizes["objects"])
    model = subject.model
    with torch.no_grad():
        step = step_of(model, *batch)
    # its features would stay in memory
    step.student = None

    def maps(turn: int) -> None:
        # a new view has decoded nothing yet
        step.teacher = View(step.teacher.reader, step.grid, outputs=step.teacher.outputs)
        model.method.masks(step)

    return {
        "maps": maps,
        "step": lambda turn: trained(subject, model.loss, batch),
        "student": lambda turn: trained(subject, model.student.loss, batch),
    }


def table(times: Times, values: Sequence[int], part: str) -> dict[str, Any]:
    """Milliseconds of a part by value, and how they grow."""
    own = [times[f"{part} {value}"] for value in values]
    return {"ms": {str(v): spread(ms) for v, ms in zip(values, own, strict=True)}, "growth": said_of(values, own)}


def growth(extent: Extent) -> dict[str, Any]:
    """By quantity and part: ``ms`` and most memory held, ``mb``, for every value, and how both grow."""
    subjects: dict[int, Subject] = {}
    found: dict[str, Any] = {}
    for quantity, values in extent.growth.items():
        works: dict[str, Work] = {}
        for value in values:
            sizes = {**extent.usual, quantity: value}
            if (levels := sizes["levels"]) not in subjects:
                subjects[levels] = Subject("pgd", "gfl", QUICK, "cpu", levels)
            works |= {f"{part} {value}": work for part, work in parts_of(subjects[levels], sizes).items()}
        times = in_turns(works, extent.share(0.2), quantity, 1)
        found[quantity] = {part: table(times, values, part) for part in PARTS}
        for part in PARTS:
            held = [peak_memory(lambda work=works[f"{part} {value}"]: work(0)) for value in values]
            by_value = {str(v): round(mb, 3) for v, mb in zip(values, held, strict=True)}
            found[quantity][part] |= {"mb": by_value, "growth of memory": said_of(values, [[mb] for mb in held])}
    return found
