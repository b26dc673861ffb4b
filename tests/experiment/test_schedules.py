"""From a config file and overrides to the config of a training: options and schedules."""

from __future__ import annotations

import pytest
from mmengine.optim import CosineAnnealingLR, LinearLR
from torch.optim import SGD

from benchmark.experiment.config import detector_config
from benchmark.experiment.settings import Detector, SettingsError
from benchmark.experiment.workspace import ROOT

R18 = "benchmark/configs/mini/gfl_r18.py"


def test_options_are_set():
    options = {"param_scheduler.1.eta_min_ratio": 0.5, "train_dataloader.batch_size": 3}
    options["model.backbone.init_cfg"] = None
    cfg = detector_config(Detector(R18, options={"train_dataloader.batch_size": 2}), options)
    assert cfg.param_scheduler[1].eta_min_ratio == 0.5
    assert cfg.train_dataloader.batch_size == 3
    assert cfg.model.backbone.init_cfg is None
    assert detector_config(Detector(R18)).model.backbone.init_cfg.checkpoint.startswith(str(ROOT))


def test_a_list_for_a_pair_becomes_a_pair():
    """YAML has no tuples, and to mmcv's Resize a list of two is no size."""
    cfg = detector_config(Detector(R18), {"val_dataloader.dataset.pipeline.1.scale": [80, 80]})
    assert cfg.val_dataloader.dataset.pipeline[1].scale == (80, 80)


def rates(cfg, steps: int) -> list[float]:
    """The learning rate of every step under the config's schedulers."""
    import torch

    optimizer = SGD([torch.nn.Parameter(torch.zeros(1))], lr=cfg.optim_wrapper.optimizer.lr)
    kinds = {"LinearLR": LinearLR, "CosineAnnealingLR": CosineAnnealingLR}
    schedulers = [kinds[s["type"]](optimizer, **{k: s[k] for k in s if k != "type"}) for s in cfg.param_scheduler]
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    return found


@pytest.mark.parametrize(("iterations", "warmup"), [(None, 40), (400, 40), (1200, 40), (100, 10), (20, 2)])
def test_schedule_follows_iterations(iterations, warmup):
    cfg = detector_config(Detector(R18, iterations=iterations))
    length = iterations or 400
    linear, cosine = cfg.param_scheduler
    assert cfg.train_cfg.max_iters == length
    assert (linear.begin, linear.end) == (0, warmup)
    assert (cosine.begin, cosine.end, cosine.T_max) == (warmup, length, length - warmup)
    lr = rates(cfg, length)
    peak = cfg.optim_wrapper.optimizer.lr
    assert lr[0] == pytest.approx(0.05 * peak)
    assert lr[warmup] == pytest.approx(peak) == max(lr)
    assert all(a >= b for a, b in zip(lr[warmup:], lr[warmup + 1 :], strict=False))
    # after the last step the rate would be a hundredth of the peak
    assert lr[-1] < (0.011 if length >= 100 else 0.03) * peak


@pytest.mark.parametrize("iterations", [2, 3, 4, 8, 19])
def test_schedules_of_a_few_iterations(iterations):
    lr = rates(detector_config(Detector(R18, iterations=iterations)), iterations)
    assert len(lr) == iterations
    assert lr[0] == pytest.approx(1e-4)
    # two steps of warm-up, or it would never leave its start
    assert max(lr) == pytest.approx(2e-3 if iterations > 2 else 1e-4)


def test_epoch_schedules_are_not_stretched(tmp_path):
    config = tmp_path / "epochs.py"
    loop = 'dict(_delete_=True, type="EpochBasedTrainLoop", max_epochs=2)'
    config.write_text(f'_base_ = "{ROOT / R18}"\ntrain_cfg = {loop}\n')
    with pytest.raises(SettingsError, match="iterations: the config trains by epochs"):
        detector_config(Detector(str(config), iterations=5))
