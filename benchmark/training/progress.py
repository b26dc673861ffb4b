"""What a training shows: a progress bar with the AP of the last look, its gain, and what is still to come."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from tqdm import tqdm


@HOOKS.register_module()
class ProgressBar(Hook):
    """One tqdm line with ETA for training, and one for each evaluation.

    Args:
        after: steps that the experiment's other trainings still have to do; with them the line says when all are done,
            were they to take this one's time a step.
        compared: steps and AP of the student that inherits and has no method; the line gives the gain over it.
    """

    priority = "LOWEST"

    def __init__(self, after: int = 0, compared: Iterable[tuple[int, float]] = ()) -> None:
        self.after = after
        self.compared = dict(compared)
        self.shown: dict[str, str] = {}
        self.train_bar: tqdm | None = None
        self.eval_bar: tqdm | None = None

    @staticmethod
    def _bar(total: int, label: str, initial: int = 0, leave: bool = True) -> tqdm:
        # A log file gets a line now and then, a terminal a live bar.
        pace = 0.5 if sys.stderr.isatty() else 30
        shown = {"desc": label, "leave": leave, "mininterval": pace, "dynamic_ncols": True}
        return tqdm(total=total, initial=initial, disable=not is_main_process(), **shown)

    def before_train(self, runner) -> None:
        self.train_bar = self._bar(runner.max_iters, Path(runner.work_dir).name, runner.iter)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        told = {"loss": f"{outputs['loss'].item():.3f}", **self.shown}
        if self.after and (rate := self.train_bar.format_dict["rate"]):
            rest = (self.train_bar.total - self.train_bar.n + self.after) / rate
            told["all"] = tqdm.format_interval(rest)
        self.train_bar.set_postfix(told, refresh=False)
        self.train_bar.update()

    def after_train(self, runner) -> None:
        self.train_bar.close()

    def _before_eval(self, loader) -> None:
        self.eval_bar = self._bar(len(loader), "evaluating", leave=False)

    def before_val_epoch(self, runner) -> None:
        self._before_eval(runner.val_dataloader)

    def before_test_epoch(self, runner) -> None:
        self._before_eval(runner.test_dataloader)

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self.eval_bar.update()

    after_test_iter = after_val_iter

    def after_val_epoch(self, runner, metrics=None) -> None:
        self.eval_bar.close()
        if "AP" in (metrics or {}):
            self.shown = {"AP": f"{metrics['AP']:.1f}"}
            if runner.iter in self.compared:
                self.shown["gain"] = f"{metrics['AP'] - self.compared[runner.iter]:+.1f}"

    def after_test_epoch(self, runner, metrics=None) -> None:
        self.eval_bar.close()
