"""Run the stages of an experiment side by side: ``python -m benchmark.launch --jobs 2``, in its folder.

The same as ``dvc repro``, but stages that do not wait for each other run at once: on this machine, each on the GPU that
has the fewest (a training with ``gpus: 4`` on four of them), or as jobs of a Slurm cluster that shares the folder
(``--executor slurm --slurm partition=gpu gpus_per_node=1``). A table shows what waits, runs, is done or failed. A stage
that fails stops only what needs it. Stopped or killed, the jobs go on; called again, it finds them (``work/launch``).
Afterwards ``dvc repro`` has nothing to do.

``--partial`` goes on with an experiment whose earlier part was made elsewhere: records in git are taken as they are,
and weights that nobody asks for are neither fetched nor trained again.
"""

from __future__ import annotations

if __name__ == "__main__":
    # help and usage errors come before the imports that take seconds
    from benchmark.experiment.cli import answer_early

    answer_early("launch")

import fnmatch
import os
import textwrap
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from benchmark.experiment.cli import command_parser, run_cli
from benchmark.experiment.jobs import PACE, Queue
from benchmark.experiment.names import hint
from benchmark.experiment.settings import Params, SettingsError, load
from benchmark.experiment.stages import TOLD, StageError, Stages
from benchmark.experiment.workspace import HERE, Workspace

WAITING, RUNNING, DONE, FAILED, BLOCKED = "waiting", "running", "done", "failed", "blocked"
LOOKS = {WAITING: "dim", RUNNING: "cyan", DONE: "green", FAILED: "bold red", BLOCKED: "red"}


@dataclass
class Task:
    """A stage and what became of it."""

    name: str
    state: str = WAITING
    job: Any = None
    began: float = 0.0
    seconds: float = 0.0
    note: str = ""
    #: of this machine, that the job sees, as ``CUDA_VISIBLE_DEVICES`` has them; None: none there, or Slurm's matter
    gpus: str | None = None
    #: its outputs are gone and another stage needs them
    asked_for: bool = False


def taken(params: Params) -> dict[str, int]:
    """How many GPUs each training takes, by the name of its stage."""
    teachers = {f"teacher@{name}": pair.teacher.gpus for name, pair in params.pairs.items()}
    students = {f"distill@{job.label}": job.detector.gpus for job in params.jobs if job.run is not None}
    return teachers | students


def ends_first(needs: Mapping[str, Iterable[str]], wanted: set[str]) -> list[str]:
    """Stages behind what they need, each as early as can be: a training is evaluated before the next one begins."""
    order: dict[str, None] = {}

    def visit(name: str) -> None:
        if name in wanted and name not in order:
            for one in sorted(needs[name], key=rank.__getitem__):
                visit(one)
            order[name] = None

    rank = {name: number for number, name in enumerate(needs)}
    needed = {one for name in wanted for one in needs[name]}
    for name in needs:
        if name not in needed:
            visit(name)
    return list(order)


class Launch:
    """All stages that are asked for, on their way."""

    def __init__(
        self, stages: Stages, queue: Queue, jobs: int, wanted: set[str], gpus: Mapping[str, int] | None = None
    ) -> None:
        self.stages, self.queue, self.jobs = stages, queue, jobs
        #: how many a stage takes; one, where it is not named
        self.gpus = gpus or {}
        self.tasks = {name: Task(name) for name in ends_first(stages.needs, wanted)}
        for task in self.tasks.values():
            job, own = queue.found_again(task.name)
            if job is not None:
                task.state, task.job, task.gpus, task.began = RUNNING, job, own, time.monotonic()

    def in_state(self, *states: str) -> list[Task]:
        return [task for task in self.tasks.values() if task.state in states]

    def step(self) -> bool:
        """Look after the jobs and submit what is ready; whether anything is left to do."""
        for task in self.in_state(RUNNING):
            task.seconds = time.monotonic() - task.began
            task.note = self.queue.log(task.job)
            if not self.queue.at_work(task.job):
                self.settle(task)
        for task in self.in_state(WAITING):
            before = [self.tasks[name].state for name in self.stages.needs[task.name]]
            if {FAILED, BLOCKED} & set(before):
                task.state = BLOCKED
            elif all(state == DONE for state in before) and len(self.in_state(RUNNING)) < self.jobs:
                self.start(task)
        return bool(self.in_state(WAITING, RUNNING))

    def start(self, task: Task) -> None:
        if not task.asked_for and not self.stages.changed(task.name):
            task.state, task.note = DONE, "up to date"
            return
        if lacking := self.stages.lacking(task.name) if self.stages.partial else ():
            for name in lacking:
                self.tasks[name].state, self.tasks[name].asked_for = WAITING, True
            return
        busy = [gpu for other in self.in_state(RUNNING) if other.gpus for gpu in other.gpus.split(",")]
        # those of the fewest jobs
        count = self.gpus.get(task.name, 1)
        task.gpus = ",".join(sorted(self.queue.gpus, key=busy.count)[:count]) or None
        task.state, task.job, task.began = RUNNING, self.queue.submit(task.name, task.gpus, count), time.monotonic()

    def settle(self, task: Task) -> None:
        """What DVC says of the files counts, not how the job ended."""
        self.queue.remember(task.name, None)
        if self.queue.executor == "slurm" and TOLD in self.queue.log(task.job):
            # it has saved: its time was over, or its node is wanted by others
            task.state = WAITING
            return
        wrong = self.stages.changed(task.name, ran=True) or (task.asked_for and not self.stages.there(task.name))
        task.state, task.asked_for = FAILED if wrong else DONE, False
        if task.state == FAILED:
            task.note = f"{self.queue.log(task.job)} ({task.job.paths.stdout})"

    def tell_changes(self, told: dict[str, str]) -> None:
        """Print a line for each stage that is in another state than was ``told``, and the end of a failed one's log."""
        for task in self.tasks.values():
            if told.get(task.name, WAITING) == task.state:
                continue
            told[task.name] = task.state
            if task.state == BLOCKED:
                # all that wait for a failed one, which has a line
                continue
            print(f"{task.name}: {task.state} {task.note}".rstrip(), flush=True)
            if task.state == FAILED:
                print(textwrap.indent(self.queue.end(task.job), "    "), flush=True)

    def table(self) -> Table:
        """What runs, failed or waits, and how many are done."""
        table = Table(box=None, title=f"{len(self.in_state(DONE))} of {len(self.tasks)} stages done", expand=True)
        for name in ("stage", "state", "time"):
            table.add_column(name, no_wrap=True)
        table.add_column("last line", no_wrap=True, overflow="ellipsis", ratio=1)
        waiting = self.in_state(WAITING)
        for task in [*self.in_state(FAILED, RUNNING), *waiting[:5]]:
            clock = f"{task.seconds // 60:.0f}:{task.seconds % 60:02.0f}" if task.began else ""
            table.add_row(task.name, f"[{LOOKS[task.state]}]{task.state}", clock, task.note)
        if len(waiting) > 5:
            table.add_row(f"and {len(waiting) - 5} more", f"[dim]{WAITING}", "", "")
        if blocked := len(self.in_state(BLOCKED)):
            table.add_row(f"{blocked} wait for these", f"[{LOOKS[BLOCKED]}]{BLOCKED}", "", "")
        return table


def launch(
    folder: Path,
    executor: str,
    jobs: int,
    only: list[str],
    limits: dict[str, Any],
    partial: bool = False,
    gpus: Mapping[str, int] | None = None,
) -> None:
    """Bring the stages up to date.

    Args:
        folder: of the experiment.
        executor: ``local`` or ``slurm``.
        jobs: at most so many at once.
        only: patterns of stages' names; these and what they need. Empty: all.
        limits: settings of the jobs, as submitit names them.
        partial: outputs that are gone are missed only by stages that have to run.
        gpus: how many a stage takes on this machine; one, where it is not named.

    Raises:
        StageError: there are no such stages, or some failed.
    """
    stages = Stages(folder, partial)
    asked = {name for name in stages.needs if not only or any(fnmatch.fnmatch(name, one) for one in only)}
    if not asked:
        raise StageError(f"no stage is called like {', '.join(only)}; {hint(only[0], stages.needs)}")
    wanted = stages.with_needs(asked)
    # with `partial` what is not there may not be needed
    if not partial and (absent := stages.absent(wanted)):
        path, remedy = next(iter(absent.items()))
        raise StageError(f"{path}: not there, and no stage makes it; {remedy}")
    if executor == "local":
        # jobs share the cores; more threads than these would only wait for each other
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // jobs)))
    run = Launch(stages, Queue(Workspace(folder), executor, limits, partial), jobs, wanted, gpus)
    console = Console()
    told: dict[str, str] = {}
    with Live(run.table(), console=console, refresh_per_second=2) as live:
        more = True
        while more:
            more = run.step()
            live.update(run.table())
            # where nobody looks at a table, a line for each change
            if not console.is_terminal:
                run.tell_changes(told)
            time.sleep(PACE if more else 0)
    if failed := run.in_state(FAILED):
        blocked = len(run.in_state(BLOCKED))
        told_blocked = f"; {blocked} more wait for them" if blocked else ""
        raise StageError(f"failed: {'; '.join(f'{t.name}: {t.note}' for t in failed)}{told_blocked}")


def main() -> None:
    args = command_parser("launch").parse_args()
    pairs = [one.partition("=") for one in args.slurm]
    limits = {key: int(value) if value.isdigit() else value for key, _, value in pairs}
    # DVC would read it first, and not say which key is wrong
    gpus = taken(load(HERE.params)) if HERE.params.is_file() else None
    launch(HERE.root, args.executor, args.jobs, args.only, limits, args.partial, gpus)


if __name__ == "__main__":
    run_cli(main, StageError, SettingsError)
