"""Attack the evaluators with many random scenes: what ``tests/evaluation/test_attack.py`` does with a few.

``python -m tools.fuzz_metrics --scenes 10000`` draws so many scenes for each evaluator, stops at the first figure that
differs from its oracle (hypothesis then shows the smallest such scene) and else prints what was compared. It needs the
packages of the tests (``pip install -e .[dev]``).
"""

from __future__ import annotations

if __name__ == "__main__":
    # help and usage errors come before the imports that take seconds
    from benchmark.experiment.cli import answer_early

    answer_early("fuzz_metrics", "tools")

import sys
import time
from collections.abc import Callable
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy

from benchmark.experiment.cli import command_parser

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from support.attack import ATTACKS, Compared
from support.random_scenes import contents


def attack(
    check: Callable[[object], Compared], scenes: SearchStrategy, count: int, start: int
) -> tuple[dict[str, int], int, float]:
    """What ``count`` scenes held, how many figures were compared, and the largest difference.

    Args:
        check: of one scene; an AssertionError where a figure differs.
        scenes: where they come from.
        count: how many.
        start: seed of the draws.
    """
    held: dict[str, int] = {"scenes": 0}
    compared, largest = 0, 0.0

    @seed(start)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
    )
    @given(scenes)
    def attacked(scene: object) -> None:
        nonlocal compared, largest
        figures, difference = check(scene)
        compared, largest = compared + figures, max(largest, difference)
        held["scenes"] += 1
        for what, number in contents(scene).items():
            held[what] = held.get(what, 0) + number

    attacked()
    return held, compared, largest


def main() -> None:
    args = command_parser("fuzz_metrics", "tools").parse_args()
    for name, (check, scenes) in ATTACKS.items():
        begun = time.perf_counter()
        held, compared, largest = attack(check, scenes, args.scenes, args.seed)
        told = ", ".join(f"{number:,} {what}" for what, number in held.items())
        print(f"{name}: {told}; {compared:,} figures, largest difference {largest:.0e}", end=" ")
        print(f"({time.perf_counter() - begun:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
