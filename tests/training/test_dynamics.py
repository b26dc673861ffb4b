"""Distances and gradients by region: by hand, and without any effect on the training."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from support.flat import prediction_guided_weights
from support.marks import long_but
from support.steps import grid
from support.worlds import runs, same

from benchmark.experiment import config
from benchmark.experiment.config import key_count
from benchmark.experiment.settings import Detector
from benchmark.training.dynamics import regions, relative_distances, shares
from benchmark.training.hooks import read_curve
from benchmark.training.result import FEATURES, REGIONS
from pgd.checkpoint import load_state
from pgd.maths.regions import (
    Objects,
    inside,
)


def test_regions_are_pgds():
    positions, g = grid(1), torch.Generator().manual_seed(0)
    scores = torch.rand(len(positions.centers), 3, generator=g)
    boxes, gt = positions.priors, torch.tensor([[4.0, 4.0, 44.0, 40.0], [30.0, 20.0, 60.0, 46.0]])
    labels = torch.tensor([0, 2])
    (region,) = regions(positions, scores[None], boxes[None], [Objects(gt, labels)], topk=3)
    weights = prediction_guided_weights(scores, boxes, positions.centers, gt, labels, 0.8, 3)
    within = inside(positions.centers, gt).any(dim=1)
    assert torch.equal(region == 0, weights > 0)
    assert 3 <= int((region == 0).sum()) <= 6
    assert torch.equal(region == 1, within & (weights == 0))
    assert torch.equal(region == 2, ~within)
    assert len(region) == len(positions.centers)


def test_distances_by_hand():
    teacher = [torch.ones(1, 4, 2, 2), 2 * torch.ones(1, 4, 1, 1)]
    student = [torch.ones(1, 4, 2, 2), torch.zeros(1, 4, 1, 1)]
    student[0][0, :, 0, 0] = 3.0
    # distances: 4 at the first position (4 channels x 2^2 over 4 x 1^2), 1 at the last, which is zero there
    region = torch.tensor([[0, 1, 1, -1, 2]])
    assert relative_distances(student, teacher, region) == {"key": 4.0, "box": 0.0, "background": 1.0}
    assert math.isnan(relative_distances(student, teacher, torch.zeros_like(region))["box"])
    scaled = [10 * f for f in student], [10 * f for f in teacher]
    assert relative_distances(*scaled, region)["key"] == pytest.approx(4.0), "features' scale does not matter"


def test_shares_add_up_to_what_is_not_padding():
    gradients = [torch.tensor([[[[1.0, -3.0]]]]), torch.tensor([[[[4.0]]]])]
    assert shares(gradients, torch.tensor([[0, 1, 2]])) == {"key": 0.125, "box": 0.375, "background": 0.5}
    assert sum(shares(gradients, torch.tensor([[0, -1, 2]])).values()) == pytest.approx(0.625)


@pytest.mark.slow
@pytest.mark.parametrize("method", long_but("pgd".__eq__, ["pgd", "none", "mgd", "fkd"]))
def test_looking_changes_nothing(taught_world, monkeypatch, method):
    """The same weights with and without the hook, also where a method draws or counts; and the entries."""
    params = taught_world.settle(runs(4, one={"method": method, "inherit": "head+neck"}))
    out = taught_world.train(params, "one")
    looked, curve = load_state(out / "weights.pth"), read_curve(out / "curve.jsonl")
    entries = [e for e in curve if "distance.neck.key" in e]
    assert [e["step"] for e in entries] == [0, 1, 2, 3, 4]
    for entry in entries:
        assert all(entry[f"distance.{name}.{region}"] >= 0 for name in FEATURES for region in REGIONS)
        if method != "none":
            assert sum(entry[f"gradient.{region}"] for region in REGIONS) == pytest.approx(1, abs=1e-4)
    original = config.training_config

    def without(*args):
        cfg = original(*args)
        cfg.custom_hooks = [hook for hook in cfg.custom_hooks if hook["type"] != "Dynamics"]
        return cfg

    monkeypatch.setattr("benchmark.train.training_config", without)
    Path("work/checkpoints/one-0/fingerprint").unlink()
    plain = load_state(taught_world.train(params, "one") / "weights.pth")
    assert same(looked, plain)


@pytest.mark.parametrize(("name", "count"), [("paper/gfl_r50_1x", 30), ("paper/atss_r50_1x", 9), ("mini/gfl_r18", 8)])
def test_k_goes_with_the_detector_and_its_scale(name, count):
    assert key_count(Detector(f"benchmark/configs/{name}.py")) == count
