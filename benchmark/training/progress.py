"""What a training shows: a progress bar."""

from __future__ import annotations

import sys
from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from tqdm import tqdm


@HOOKS.register_module()
class ProgressBar(Hook):
    """One tqdm line with ETA for training, and one for each evaluation."""

    priority = "LOWEST"

    def __init__(self) -> None:
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
        self.train_bar.set_postfix(loss=f"{outputs['loss'].item():.3f}", refresh=False)
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

    after_test_epoch = after_val_epoch
