"""Trainings that end in the middle, without a process of their own."""

from __future__ import annotations

import pytest

from benchmark.training import hooks


class Killed(BaseException):
    """The process ends here."""


def kill_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """End the training in this step, after earlier ones are saved."""
    original = hooks.Record.after_train_iter

    def dies(self, runner, *args, **kwargs):
        if runner.iter + 1 == step:
            raise Killed
        original(self, runner, *args, **kwargs)

    monkeypatch.setattr(hooks.Record, "after_train_iter", dies)
