"""A training that is told to end (SIGTERM, SIGUSR1) saves what it has first; the same command goes on from there.

Clusters tell a job some seconds before they take its node: Slurm by SIGTERM, or by what ``sbatch --signal`` names.
"""

from __future__ import annotations

import signal
import sys
import threading

import torch
from mmengine.dist import all_reduce, get_world_size
from mmengine.hooks import CheckpointHook, Hook

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
#: exit status of a training that was told to end, as shells have it of a process that SIGTERM ended
STATUS = 128 + signal.SIGTERM


class Preemption(Hook):
    """Saves after the step in which a signal comes, and ends before the next one with status :data:`STATUS`.

    Processes that train together ask each other every ``interval`` steps whether one was told.
    """

    # before the checkpoints' hook, which shall save in the same step
    priority = "LOW"

    def __init__(self, interval: int = 10) -> None:
        self.interval = interval
        self.told = self.leaving = False

    def before_train(self, runner) -> None:
        # tests train in threads, too, where there are no signals to be had
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._tell) for number in SIGNALS}

    def after_train(self, runner) -> None:
        for number, handler in getattr(self, "_before", {}).items():
            signal.signal(number, handler)

    def _tell(self, number: int, frame: object) -> None:
        self.told = True

    def agreed(self, step: int) -> bool:
        """Whether this process or one that it trains with was told to end."""
        if get_world_size() == 1:
            return self.told
        if step % self.interval:
            return False
        told = torch.tensor(int(self.told))
        all_reduce(told, op="max")
        return bool(told)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        # gradients that wait for more batches are not saved
        if runner.optim_wrapper.should_update() and self.agreed(runner.iter + 1):
            self.leaving = True
            # now every step is one that is saved
            next(hook for hook in runner.hooks if isinstance(hook, CheckpointHook)).interval = 1

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        if self.leaving:
            print(
                f"{runner.work_dir}: told to end after {runner.iter} iterations; the same command goes on",
                file=sys.stderr,
                flush=True,
            )
            sys.exit(STATUS)
