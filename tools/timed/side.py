"""Two trainings on two cores: side by side with one thread each, or one after the other with two threads.

Trainings of one machine run side by side (benchmark/launch.py); this says what that is worth, and by how much two
students are trained faster here than by mmdet's own defaults, which use all cores for one.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import torch

from tools.timed.bench import Bench, begin
from tools.timed.children import ended, started
from tools.timed.switches import cores
from tools.timed.turns import in_turns, over, spreads

TRAININGS = 2
SIDE, AFTER, ALONE = "side by side, 1 thread each", "in turn, 2 threads", "in turn, 1 thread"
LITERAL = "literal, in turn, 2 threads"
#: what it is worth to train side by side
WORTH = f"{AFTER} / {SIDE}"
#: and that together with the switches of a step
ALL_WORTH = f"{LITERAL} / {SIDE}"


def serving(literal: bool) -> list[str]:
    """The arguments of a process that :func:`serve`s."""
    return ["-c", f"from tools.timed.side import serve; serve({literal})"]


def serve(literal: bool) -> None:
    """A training that does so many steps with so many threads for every line ``THREADS STEPS`` of stdin.

    The first line is a :class:`Bench`; every line is answered by one when all is done.

    Args:
        literal: without any of our switches.
    """
    answers, sys.stdout = sys.stdout, sys.stderr
    begin()
    bench = Bench.of_text(sys.stdin.readline())
    work, _ = bench.student() if literal else bench.training()
    work(0)
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        threads, steps = map(int, line.split())
        torch.set_num_threads(threads)
        for turn in range(steps):
            work(turn)
        print("done", file=answers, flush=True)


def ask(processes: list[subprocess.Popen], line: str) -> None:
    """Give all processes an order and wait until the last one has answered.

    Raises:
        RuntimeError: one has ended.
    """
    try:
        for process in processes:
            print(line, file=process.stdin, flush=True)
        answers = [process.stdout.readline() for process in processes]
    except BrokenPipeError:
        answers = [""]
    if not all(answers):
        raise RuntimeError("a training that was to run side by side has ended; its words stand above")


def side_by_side(bench: Bench) -> dict[str, Any]:
    """Milliseconds until two trainings have each done their steps."""
    if cores() < TRAININGS:
        return {"why not": f"this process may use {cores()} core"}
    steps = bench.extent.side_steps
    processes: list[subprocess.Popen] = []
    try:
        processes += [started(serving(literal)) for literal in (False,) * TRAININGS + (True,)]
        ask(processes, bench.as_text())
        ours, literal = processes[:TRAININGS], processes[TRAININGS:]
        each, all_of_them = steps, TRAININGS * steps
        variants = {
            SIDE: lambda turn: ask(ours, f"1 {each}"),
            AFTER: lambda turn: ask(ours[:1], f"2 {all_of_them}"),
            ALONE: lambda turn: ask(ours[:1], f"1 {all_of_them}"),
            LITERAL: lambda turn: ask(literal, f"2 {all_of_them}"),
        }
        times = in_turns(variants, bench.extent.share(0.5), "side by side", bench.extent.warm_up)
    finally:
        for process in processes:
            ended(process)
    return {
        "detector": bench.detector,
        "steps of each training": steps,
        "ms": spreads(times),
        WORTH: over(times[AFTER], times[SIDE]),
        f"{ALONE} / {SIDE}": over(times[ALONE], times[SIDE]),
        ALL_WORTH: over(times[LITERAL], times[SIDE]),
    }
