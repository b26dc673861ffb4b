"""Kill trainings at random moments, let them go on, and compare with one that nobody disturbed, bit by bit.

``python tests/stress/kill.py --kills 25 --methods fitnet fgd pgd crosskd`` trains a tiny student of each method once by
its command, in a process of its own. Then it starts the same training, ends it by SIGKILL after a random time, starts
it again, and so on until it has finished; weights, curve and accuracy must be those of the first, to the bit. That is
repeated until so many kills are made. Not collected by pytest; ``tests/training/test_kill.py`` makes a few kills.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]

import torch
from support.commands import environment
from support.worlds import World, mini_settings, runs, write_tiny_data

from benchmark import train as stage
from benchmark.experiment.quiet import quiet
from benchmark.experiment.settings import TEACHER, Params
from pgd.checkpoint import load_state

ITERATIONS = 24
#: forked from a process that has imported all and computed nothing: kills fall into the training, not its imports
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["benchmark.train", "support.worlds"])


def made_world(folder: Path, methods: list[str], iterations: int = ITERATIONS) -> tuple[World, Params]:
    """A folder with data, a teacher and a run of each method; the process must stand in it."""
    (folder / "data").mkdir()
    world = World(folder, write_tiny_data(folder / "data"))
    chosen = {m: {"method": m, "settings": mini_settings(m), "inherit": "head+neck"} for m in methods}
    params = world.settle(runs(iterations, workers=1, **chosen))
    world.train(params, TEACHER)
    world.evaluate(params, TEACHER)
    return world, params


def _finish(folder: Path, name: str) -> None:
    """What the command does."""
    os.chdir(folder)
    torch.set_num_threads(1)
    sys.argv = ["train", "distill", name, "--seed", "0"]
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        stage.main()


def outcome(world: World, params: Params, name: str) -> dict:
    """Weights, curve and figures of a finished training."""
    folder = world.space.trained(params.student(name, 0))
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        accuracy = world.evaluate(params, name, 0).accuracy
    return {
        "weights": load_state(folder / "weights.pth"),
        "curve": (folder / "curve.jsonl").read_text(),
        "accuracy": accuracy,
    }


def differences(found: dict, expected: dict) -> list[str]:
    """What is not the same to the bit."""
    ours, theirs = found["weights"], expected["weights"]
    other = [k for k in ours.keys() | theirs.keys() if k not in ours or k not in theirs or differ(ours[k], theirs[k])]
    return [f"weights ({len(other)} entries)"] * bool(other) + [
        key for key in ("curve", "accuracy") if found[key] != expected[key]
    ]


def differ(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether the bytes of two tensors do; NaN and the sign of zero count."""
    return a.dtype != b.dtype or a.shape != b.shape or a.numpy().tobytes() != b.numpy().tobytes()


def forget(world: World, params: Params, name: str) -> None:
    """Remove all that a training left, also what it stored of its teacher."""
    job = params.student(name, 0)
    for folder in (world.space.trained(job), world.space.checkpoints(job), world.space.features(job.pair_name)):
        shutil.rmtree(folder, ignore_errors=True)


def moment(world: World, params: Params, name: str) -> str:
    """Where a kill fell, by what it left."""
    folder = world.space.checkpoints(params.student(name, 0))
    if list(folder.glob("*.partial")):
        return "while a checkpoint was written"
    if not list(folder.glob("iter_*.pth")):
        return "before the first checkpoint"
    return "between checkpoints"


def disturbed(world: World, params: Params, name: str, seconds: float, dice: random.Random, budget: int) -> Counter:
    """One training, killed at random moments until it has finished or ``budget`` kills are made; then it may finish.

    Returns:
        How many kills fell where; a training that was done before its time was over is no kill.
    """
    kills: Counter[str] = Counter()
    forget(world, params, name)
    while kills.total() < budget:
        process = FORKS.Process(target=_finish, args=(world.folder, name))
        process.start()
        process.join(dice.uniform(0.05, 1) * seconds)
        if process.is_alive():
            process.kill()
            process.join()
            kills[moment(world, params, name)] += 1
        elif process.exitcode:
            raise SystemExit(f"{name}: a training that was started again stopped with code {process.exitcode}")
        else:
            return kills
    process = FORKS.Process(target=_finish, args=(world.folder, name))
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"{name}: a training that was started again stopped with code {process.exitcode}")
    return kills


def stress(folder: Path, methods: list[str], kills: int, iterations: int = ITERATIONS, seed: int = 0) -> list[str]:
    """Kill trainings of each method; a line each with what was done.

    Raises:
        SystemExit: a training differs from the undisturbed one, or does not go on.
    """
    dice, lines = random.Random(seed), []
    with contextlib.chdir(folder):
        world, params = made_world(folder, methods, iterations)
        for name in methods:
            world.job(params, name, 0)
            command = [sys.executable, "-m", "benchmark.train", "distill", name, "--seed", "0"]
            # as many threads as the killed ones
            subprocess.run(command, check=True, capture_output=True, env=environment())
            expected = outcome(world, params, name)
            # the first start takes the imports with it
            warm = FORKS.Process(target=int)
            warm.start()
            warm.join()
            begun = time.perf_counter()
            disturbed(world, params, name, 0, dice, 0)
            seconds, made, finished = time.perf_counter() - begun, Counter(), 1
            while True:
                if other := differences(outcome(world, params, name), expected):
                    raise SystemExit(f"{name}: differs after {made.total()} kills in {', '.join(other)}")
                print(f"{name}: the same after {made.total()} kills", file=sys.stderr, flush=True)
                if made.total() >= kills:
                    break
                made += disturbed(world, params, name, seconds, dice, kills - made.total())
                finished += 1
            told = ", ".join(f"{count} {where}" for where, count in sorted(made.items()))
            lines.append(
                f"{name}: {made.total()} kills ({told}), {finished} trainings finished, all the same to the bit"
            )
            print(lines[-1], flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--kills", type=int, default=25, help="of each method (default: %(default)s)")
    parser.add_argument("--methods", nargs="+", default=["fitnet", "fgd", "pgd", "crosskd"])
    parser.add_argument("--iterations", type=int, default=ITERATIONS)
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: %(default)s)")
    args = parser.parse_args()
    quiet()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        stress(Path(folder), args.methods, args.kills, args.iterations, args.seed)


if __name__ == "__main__":
    main()
