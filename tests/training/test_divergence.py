"""A training whose loss grows without end is stopped; one that is only noisy goes on."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch

from benchmark.training.divergence import LIMIT, STEPS, Divergence


def train(folder, losses: list[float], start: int = 0) -> None:
    """What the hook sees of a training with these losses."""
    runner = SimpleNamespace(work_dir=str(folder), iter=start)
    hook = Divergence()
    hook.before_train(runner)
    for loss in losses:
        batch = {"data_samples": [SimpleNamespace(img_id=7), SimpleNamespace(img_id=9)]}
        hook.after_train_iter(runner, 0, batch, {"loss": torch.tensor(loss)})
        runner.iter += 1


HIGH = 2 * LIMIT * 3.0


def test_growth_is_told_with_step_and_images(tmp_path):
    with pytest.raises(FloatingPointError) as caught:
        train(tmp_path, [3.0] * 20 + [HIGH] * STEPS)
    assert f"the loss diverges (600, 3 at first) at iteration {20 + STEPS} (images 7, 9); training" in str(caught.value)


@pytest.mark.parametrize(
    "losses",
    [
        [3.0] * 50,
        [3.0] * 20 + [HIGH] * (STEPS - 1) + [3.0] * 20,
        [HIGH] * 30 + [3.0] * 20,
        [3.0] * 20 + [0.9 * LIMIT * 3.0] * 20,
        [HIGH],
    ],
    ids=["even", "a burst", "from a height", "below the limit", "a step"],
)
def test_others_go_on(tmp_path, losses):
    train(tmp_path, losses)


def test_who_goes_on_knows_the_beginning(tmp_path):
    curve = [{"step": 0, "distance": 1.0}, {"step": 10, "loss": 3.0}, {"step": 20, "loss": HIGH}]
    (tmp_path / "curve.jsonl").write_text("\n".join(map(json.dumps, curve)))
    with pytest.raises(FloatingPointError, match="3 at first"):
        train(tmp_path, [HIGH] * STEPS, start=20)
    train(tmp_path, [HIGH] * STEPS, start=0)
