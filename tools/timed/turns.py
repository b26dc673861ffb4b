"""Variants of one piece of work, timed in turns, and what is said of their times."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from tqdm import tqdm

from tools.steps import spread

#: called with the number of the turn, which is negative while it warms up
Work = Callable[[int], object]
#: milliseconds of every turn by the variant's name
Times = dict[str, list[float]]


def in_turns(variants: Mapping[str, Work], turns: int, what: str, warm_up: int = 2) -> Times:
    """Milliseconds of each variant in each turn.

    All variants run once a turn, so that whatever else the machine does meets all of them and ratios within a turn are
    fair; in an order that is another one each turn, so that none always follows the same neighbour. What was built
    before is kept from Python's garbage collector, which would otherwise look through all models in the midst of any
    variant; a training has one.
    """
    times: Times = {name: [] for name in variants}
    gc.collect()
    gc.freeze()
    try:
        for turn in tqdm(range(-warm_up, turns), desc=what, mininterval=2):
            for name in random.Random(turn).sample(list(variants), len(variants)):
                start = time.perf_counter()
                variants[name](turn)
                if turn >= 0:
                    times[name].append(1e3 * (time.perf_counter() - start))
    finally:
        gc.unfreeze()
    return times


def spreads(times: Times) -> dict[str, dict[str, float]]:
    """Median and quartiles of every variant, ms."""
    return {name: spread(ms) for name, ms in times.items()}


def over(above: Sequence[float], *below: Sequence[float]) -> dict[str, float]:
    """Median and quartiles of a ratio, turn by turn: of ``above`` to the sum of all ``below``."""
    return spread(list(np.divide(above, np.sum(below, axis=0))))


def times_faster(times: Times, base: str, names: Iterable[str] | None = None) -> dict[str, dict[str, float]]:
    """How many times faster than the variant ``base`` others are."""
    chosen = [name for name in times if name != base] if names is None else names
    return {name: over(times[base], times[name]) for name in chosen}
