"""Stages as jobs of this machine or of Slurm, by submitit, remembered from one call of the launcher to the next."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmark.experiment.stages import StageError, last_line, run_stage
from benchmark.experiment.workspace import Workspace

#: seconds between two looks at the jobs
PACE = 1.0
#: seconds for which Slurm may not answer
PATIENCE = 300.0
#: settings of jobs that submitit knows by these names whatever runs them
COMMON = ("gpus_per_node", "cpus_per_task", "nodes", "mem_gb", "name", "timeout_min")
#: minutes that a job may take; a training that is cut goes on from its checkpoint at the next call
LONGEST = 7 * 24 * 60


@dataclass
class Queue:
    """Jobs of an executor, remembered in a file from one call to the next."""

    space: Workspace
    executor: str
    limits: dict[str, Any] = field(default_factory=dict)
    partial: bool = False
    #: when Slurm was asked last, and what it said
    _asked: tuple[float, dict[str, str]] = field(default=(-math.inf, {}), repr=False)

    def __post_init__(self) -> None:
        import submitit

        self.folder = (self.space.work / "launch").resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.memory = self.folder / "jobs.json"
        try:
            self.engine = submitit.AutoExecutor(self.folder / "%j", cluster=self.executor)
        except RuntimeError as error:
            raise StageError(f"--executor {self.executor}: {error}; is this a node that submits jobs?") from None
        self.engine.update_parameters(**{"timeout_min": LONGEST, **sorted_out(self.limits)})
        self.gpus = gpus_here() if self.executor == "local" else []
        self.kind = {"local": submitit.LocalJob, "slurm": submitit.SlurmJob}[self.executor]

    def submit(self, name: str, gpus: str | None = None, count: int = 1) -> Any:
        """Start (or queue) a stage; on this machine it sees these GPUs alone, and without any no GPU. ``count``: how
        many it trains on, which is what Slurm is asked for where it is asked for GPUs."""
        self._asked = (-math.inf, {})
        if isinstance(asked := self.limits.get("gpus_per_node"), int):
            self.engine.update_parameters(gpus_per_node=max(count, asked))
        # Ctrl-C, or a terminal that is closed, is meant for the launcher: what is started meanwhile ignores both
        before = {kind: signal.signal(kind, signal.SIG_IGN) for kind in (signal.SIGINT, signal.SIGHUP)}
        try:
            job = self.engine.submit(run_stage, name, str(self.space.root.resolve()), self.partial, gpus)
        finally:
            for kind, handler in before.items():
                signal.signal(kind, handler)
        began = _began(job.job_id) if self.executor == "local" else None
        self.remember(name, {"id": job.job_id, "began": began, "gpus": gpus})
        return job

    def remember(self, name: str, job: dict[str, Any] | None) -> None:
        """Write down a job; None: there is none any more."""
        known = {**self.known(), name: job}
        text = json.dumps({k: v for k, v in known.items() if v is not None}, indent=1) + "\n"
        # a kill or a full disk leaves the old file
        partial = self.memory.with_suffix(".partial")
        partial.write_text(text, encoding="utf-8")
        partial.replace(self.memory)

    def known(self) -> dict[str, dict[str, Any]]:
        """Jobs by stage: ``id``, ``gpus`` and, on this machine, when the process ``began``."""
        return json.loads(self.memory.read_text(encoding="utf-8")) if self.memory.is_file() else {}

    def found_again(self, name: str) -> tuple[Any, str | None]:
        """The job of an earlier call, if it is still at work, and its GPUs."""
        known = self.known().get(name)
        # after a restart of the machine another process may have its number
        if known is None or (self.executor == "local" and _began(known["id"]) != known["began"]):
            return None, None
        job = self.kind(self.folder / "%j", known["id"])
        return (job, known["gpus"]) if self.at_work(job) else (None, None)

    def at_work(self, job: Any) -> bool:
        """Whether a job waits or runs."""
        if self.executor == "slurm":
            return job.job_id in self.in_slurm()
        if job._process is None:
            # started by another process: its id is that of the process
            return not job.paths.result_pickle.is_file() and _lives(int(job.job_id))
        return not job.done()

    def in_slurm(self) -> dict[str, str]:
        """State of the user's jobs that Slurm has, by id; asked for at most once a second.

        submitit asks `sacct`, which knows nothing where Slurm keeps no accounts.
        """
        if time.monotonic() - self._asked[0] > PACE:
            self._asked = time.monotonic(), dict(line.split() for line in _squeue().splitlines())
        return self._asked[1]

    def log(self, job: Any) -> str:
        """The last line that the job wrote, or that it waits for a node."""
        if self.executor == "slurm" and self.in_slurm().get(job.job_id) == "PENDING":
            return "in Slurm's queue"
        return last_line(self.end(job))

    def end(self, job: Any) -> str:
        """The end of what the job wrote."""
        try:
            with job.paths.stdout.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
                return file.read().decode(errors="replace")
        except OSError:
            return ""


def sorted_out(limits: dict[str, Any]) -> dict[str, Any]:
    """Settings of jobs as submitit takes them: those that it names are its own, the others sbatch's (``--nice``)."""
    from submitit import SlurmExecutor

    known, others = {}, {}
    for name, value in limits.items():
        if name in COMMON:
            known[name] = value
        elif name in SlurmExecutor._valid_parameters():
            known[f"slurm_{name}"] = value
        else:
            others[name] = value
    return {**known, "slurm_additional_parameters": others} if others else known


def _squeue() -> str:
    """The user's jobs and their states. Slurm's controller may be busy or begin anew: it is asked for some minutes."""
    until = time.monotonic() + PATIENCE
    while True:
        told = subprocess.run(["squeue", "--me", "-h", "-o", "%i %T"], capture_output=True, text=True, check=False)
        if told.returncode == 0:
            return told.stdout
        if time.monotonic() > until:
            raise StageError(f"squeue: {last_line(told.stderr)}; the jobs go on, and the same command finds them")
        time.sleep(5 * PACE)


def gpus_here() -> list[str]:
    """The GPUs of this machine that this process may use, as ``CUDA_VISIBLE_DEVICES`` names them."""
    import torch

    chosen = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    if not torch.cuda.is_available():
        return []
    return chosen.split(",") if chosen else [str(number) for number in range(torch.cuda.device_count())]


def _state(process: str | int) -> list[str]:
    """What the kernel tells of a process, from its state on (``man proc_pid_stat``); empty where it tells nothing."""
    told = Path(f"/proc/{process}/stat")
    return told.read_text(encoding="utf-8").rpartition(") ")[2].split() if told.is_file() else []


def _began(process: str) -> str | None:
    """When a process of this machine was started, in the kernel's clock since the machine was; None: there is none."""
    state = _state(process)
    return state[19] if state else None


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except OSError:
        return False
    # one that has ended but that nobody has waited for still answers
    return _state(process)[:1] != ["Z"]
