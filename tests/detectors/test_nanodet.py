"""NanoDet: shapes, positions, weights of its own on every level; weights that were trained on COCO, where they are."""

from __future__ import annotations

import pandas as pd
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from support.detectors import QUIET, images
from torch import nn
from torch.testing import assert_close

from benchmark import key_regions
from benchmark.experiment.workspace import ROOT
from pgd.checkpoint import load_strict
from pgd.dense import reader_of
from pgd.detectors.nanodet import PerLevel, ShuffleUnit
from pgd.tape import Tape

pytestmark = QUIET
#: strides, and where in its cell a position lies, in strides
NAMES = {
    "nanodet_m_320": ((8, 16, 32), 0.5),
    "nanodet_m_05x_320": ((8, 16, 32), 0.5),
    "nanodet_plus_m_416": ((8, 16, 32, 64), 0.0),
}
#: (height, width), sides that the coarsest stride does not divide included
SIZES = ((128, 192), (96, 160))


def config_of(name: str) -> str:
    return str(ROOT / f"benchmark/configs/nanodet/{name}.py")


def built(name: str) -> nn.Module:
    init_default_scope("mmdet")
    torch.manual_seed(0)
    return MODELS.build(Config.fromfile(config_of(name)).model).eval()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", SIZES)
@torch.no_grad()
def test_shapes(name, size):
    model, (strides, offset) = built(name), NAMES[name]
    features = model.extract_feat(images(size=size))
    expected = [tuple(-(-side // stride) for side in size) for stride in strides]
    assert [tuple(level.shape) for level in features] == [(2, 96, *level) for level in expected]
    logits, distributions = model.bbox_head(features)
    assert [tuple(level.shape) for level in logits] == [(2, 80, *level) for level in expected]
    assert [tuple(level.shape) for level in distributions] == [(2, 4 * 8, *level) for level in expected]
    reader = reader_of(model.bbox_head)
    assert (reader.strides, reader.bins) == (strides, 8)
    grid = reader.grid(expected, [{"pad_shape": size}] * 2, torch.device("cpu"))
    starts = [0, *torch.tensor(grid.counts).cumsum(0).tolist()]
    for start, stride in zip(starts, strides, strict=False):
        assert grid.centers[start].tolist() == [offset * stride] * 2
    assert reader.boxes((logits, distributions), grid).shape == (2, len(grid.centers), 4)


@torch.no_grad()
def test_halves_are_interleaved():
    unit, x = ShuffleUnit(8, 8, stride=1), torch.randn(2, 8, 3, 5)
    out = unit(x)
    assert torch.equal(out[:, ::2], x[:, :4])
    assert torch.equal(out[:, 1::2], unit.b2(x[:, 4:]))
    assert ShuffleUnit(6, 8, stride=2)(torch.randn(2, 6, 7, 5)).shape == (2, 8, 4, 3)


@torch.no_grad()
def test_every_level_has_its_own_weights():
    head, features = built("nanodet_m_320").bbox_head, [torch.randn(1, 96, side, side) for side in (8, 4, 2)]
    before = head(features)
    for layer in head.modules():
        if isinstance(layer, PerLevel):
            for p in layer.blocks[1].parameters():
                p.mul_(2)
    for old, new in zip(before, head(features), strict=True):
        assert [torch.equal(*pair) for pair in zip(old, new, strict=True)] == [True, False, True]


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_runs_on_from_the_towers_first_block(name):
    model = built(name)
    tape = Tape(model)
    with tape.recording():
        model.bbox_head(model.extract_feat(images()))
    assert [len(tower) for tower in tape.towers] == [len(NAMES[name][0])] * 2
    again = tape.reader.outputs_from(tape.neck, *tape.towers)
    for own, found in zip(tape.outputs, again, strict=True):
        for pair in zip(own, found, strict=True):
            assert_close(*pair, rtol=0, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_weights_fit_strictly(name, coco_weights):
    model = built(name)
    load_strict(model, coco_weights / f"{name}.pth", name)
    head = model.bbox_head
    for ours, theirs in zip(head.cls_convs.parameters(), head.reg_convs.parameters(), strict=True):
        assert torch.equal(ours, theirs), "the original has one tower"


@pytest.mark.slow
def test_few_predictions_carry_it(coco_weights, coco_sample, tmp_path):
    """On ten photographs: what all predictions give, a random hundredth does not, and the best hundredth does."""
    name = "nanodet_plus_m_416"
    files = {
        "config": config_of(name),
        "checkpoint": coco_weights / f"{name}.pth",
        "annotations": coco_sample / "annotations" / "instances_val2017.json",
        "images": coco_sample / "val2017",
        "out": tmp_path,
    }
    few = ["--limit", "10", "--percents", "1", "100", "--draws", "1", "--modes", "predictions"]
    key_regions.main([part for key, value in files.items() for part in (f"--{key}", str(value))] + few)
    ap = pd.read_csv(tmp_path / f"{name}.csv").set_index(["selection", "percent"])["AP"]
    assert ap["top", 100] > 20
    assert ap["random", 1] < ap["top", 100] / 2
    assert ap["top", 1] > 0.9 * ap["top", 100]
