"""What would crash a training is told before one begins."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.worlds import light_content
from torch import nn

from benchmark.experiment.config import training_config
from benchmark.experiment.settings import Detector, Job, Pair, Run, SettingsError, Teacher, parse
from benchmark.experiment.soundness import check_detector, check_run, overrun
from benchmark.experiment.workspace import ROOT

HALF, FULL = (f"benchmark/configs/real/gfl_r18{end}.py" for end in ("_half", ""))


@pytest.mark.parametrize(
    "conv, told",
    [
        (nn.Conv2d(8, 16, 1, stride=2), True),
        (nn.Conv2d(8, 16, 1, stride=(1, 2)), True),
        (nn.Conv2d(32, 32, 1, stride=2, groups=4), True),
        (nn.Conv2d(16, 16, 1, stride=2), False),
        (nn.Conv2d(8, 16, 1), False),
        (nn.Conv2d(8, 16, 3, stride=2, padding=1), False),
    ],
)
def test_which_convolutions_are_told(conv, told):
    assert overrun(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Sequential(conv))) == ["1.0"] * told


def test_a_detector_that_would_crash_is_refused_and_its_remedy_named():
    check_detector(Detector(HALF))
    with pytest.raises(SettingsError) as caught:
        check_detector(Detector(HALF), {"channels_last": True})
    said = str(caught.value)
    assert said.startswith(f"{HALF}: backbone.layer2.0.downsample.0 is a strided 1x1 convolution of fewer than 16 ")
    assert "`channels_last = False`" in said


@pytest.mark.slow
def test_no_config_of_ours_would_crash():
    configs = sorted(
        path for kind in ("mini", "paper", "real") for path in (ROOT / "benchmark/configs" / kind).glob("*_*.py")
    )
    assert len(configs) > 40
    for path in configs:
        check_detector(Detector(str(path.relative_to(ROOT))))


def test_narrower_by_an_option():
    options = {"model.backbone.base_channels": 8, "model.neck.in_channels": [8, 16, 32, 64]}
    with pytest.raises(SettingsError, match=r"gfl_r18\.py: backbone\.layer2\.0\.downsample\.0"):
        check_detector(Detector(FULL), options)


def test_a_length_that_a_run_cannot_have_is_told_before_anything_is_trained():
    """Also of a run without a method, of which no context is built."""
    content = light_content()
    content["pairs"]["gfl"]["student"] = {"config": "benchmark/configs/paper/gfl_r50_1x.py"}
    content["runs"] = {"x": {"pair": "gfl", "iterations": 9}}
    params = parse(content)
    with pytest.raises(SettingsError, match=r"^runs\.x: .*iterations: the config trains by epochs"):
        check_run("x", params)


@pytest.mark.parametrize("config, innermost", [(HALF, False), (FULL, True)])
def test_a_training_lays_channels_out_as_its_config_says(tiny_data, config, innermost):
    pair = Pair(Teacher(FULL), Detector(config), "tiny")
    cfg = training_config(Job("x", 0, "p", pair, Run(pair="p")), tiny_data, None, Path("w"))
    assert cfg.model.channels_last is innermost


def test_the_layout_that_is_told_to_take_has_right_gradients():
    """As in the student of half the width: the same with channels innermost ends with a corrupted heap on AVX-512."""
    torch.manual_seed(0)
    x, weight = torch.randn(8, 8, 64, 64), torch.randn(16, 8, 1, 1, requires_grad=True)
    out = nn.functional.conv2d(x, weight, stride=2)
    above = torch.randn_like(out)
    found = torch.autograd.grad(out, weight, above)[0].flatten(1)
    expected = torch.einsum("nohw,nihw->oi", above.double(), x[:, :, ::2, ::2].double())
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-3)
