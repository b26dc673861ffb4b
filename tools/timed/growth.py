"""How the cost of PGD's maps and step grows with objects, images, the image's side and levels: time and memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
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
#: of which a power law is asked; further levels are ever smaller
POWERS = ("objects", "images", "side")
#: exponents that are tried
EXPONENTS = np.arange(0.05, 3.0, 0.01)
#: values that an exponent is fitted to
TAIL = 3
#: what costs less than this many times more in the end than at the beginning does not grow
GROWN = 1.1


def exponent(values: Sequence[float], costs: Sequence[float]) -> float | None:
    """p of the curve a + b n^p, a and b not negative, that goes through the last costs with the least relative error.

    Of the costs themselves a straight line in double-logarithmic axes would give less: there is a part that does not
    depend on n. The last :data:`TAIL` alone, where what grows is most of it. None where costs hardly grow. No measure
    of peaks of memory: they stand still as long as they belong to something else, and the bend that follows would be
    taken for a power.
    """
    n, cost = np.asarray(values[-TAIL:], float) / max(values), np.asarray(costs[-TAIL:], float)
    if cost[-1] < GROWN * cost[0]:
        return None

    def error(p: float) -> float:
        return nnls(np.stack((1 / cost, n**p / cost), axis=1), np.ones_like(cost))[1]

    return round(float(min(EXPONENTS, key=error)), 2)


def steepest(values: Sequence[float], costs: Sequence[float]) -> float:
    """By which power of n the whole cost goes at most between a value and the next."""
    return round(float(np.max(np.diff(np.log(costs)) / np.diff(np.log(values)))), 2)


def said_of(values: Sequence[int], by_turn: Sequence[Sequence[float]]) -> dict[str, Any]:
    """The exponent and the steepest rise of the medians over turns, and the spread of the turns' own exponents.

    Args:
        values: n.
        by_turn: for each n the costs of all turns.
    """
    middle = [float(np.median(costs)) for costs in by_turn]
    own = [p for p in (exponent(values, costs) for costs in zip(*by_turn, strict=True)) if p is not None]
    found: dict[str, Any] = {"exponent": exponent(values, middle), "steepest": steepest(values, middle)}
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


def table(times: Times, values: Sequence[int], part: str, held: Sequence[float], power: bool) -> dict[str, Any]:
    """Milliseconds and megabytes of a part by value; with ``power`` how they grow."""
    own = [times[f"{part} {value}"] for value in values]
    found: dict[str, Any] = {
        "ms": {str(v): spread(ms) for v, ms in zip(values, own, strict=True)},
        "mb": {str(v): round(mb, 3) for v, mb in zip(values, held, strict=True)},
    }
    if power:
        found |= {"growth": said_of(values, own), "growth of memory": said_of(values, [[mb] for mb in held])}
    return found


def growth(extent: Extent) -> dict[str, Any]:
    """By quantity and part: ``ms``, and ``mb``, the most memory held beyond what was there before, for every value."""
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
        found[quantity] = {}
        for part in PARTS:
            held = [peak_memory(lambda work=works[f"{part} {value}"]: work(0)) for value in values]
            found[quantity][part] = table(times, values, part, held, quantity in POWERS)
    return found
