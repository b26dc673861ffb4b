"""Bring NanoDets that were trained on COCO, as weights for mmdet: ``python -m tools.nanodet --root DIR``.

Their authors' weights (github.com/RangiLyu/nanodet, Apache-2.0) are public as files for ncnn in two other repositories:
NanoDet-Plus-m in nihui/ncnn-webassembly-nanodet, NanoDet-m and NanoDet-m 0.5x in DefTruth/lite.ai.toolkit. Both are
fetched from one commit, compared with their SHA-256 and written as ``DIR/<config>.pth`` for the configs of
benchmark/configs/nanodet (11 MB in all); what is there already is left alone. ``experiments/coco-regions`` needs them.
"""

from __future__ import annotations

if __name__ == "__main__":
    # help and usage errors come before the imports that take seconds
    from benchmark.experiment.cli import answer_early

    answer_early("nanodet", "tools")

from collections.abc import Iterator
from pathlib import Path

import torch
from mmdet.registry import DATASETS
from mmengine.config import Config
from torch import Tensor, nn

from benchmark.data.download import Remote, fetch
from benchmark.data.faults import DataError
from benchmark.experiment.cli import command_parser, run_cli
from benchmark.experiment.contexts import untrained
from benchmark.experiment.workspace import ROOT
from benchmark.fetch import GITHUB
from pgd.checkpoint import export
from tools.ncnn import CONVOLUTIONS, Convolution, in_order_of_need, read_convolutions, read_graph

CONFIGS = ROOT / "benchmark" / "configs" / "nanodet"
NIHUI = "nihui/ncnn-webassembly-nanodet/raw/ac68cf74d4d81f70160bb9e9020c8be1fd78502a/assets/coco.torchscript.ncnn"
LITE = "DefTruth/lite.ai.toolkit/raw/bfbf6a54bdf2dbd5add64b398df763afa2837b4b/examples/hub/ncnn/cv"
#: by config: where its two files are, and their sizes in bytes and SHA-256
FILES = {
    "nanodet_plus_m_416": (
        NIHUI,
        (17560, "1c0ddf1e8009a6ff55032deda21b97e221ebdfe68d820faa68999790d5e972f9"),
        (2397184, "1942dede585c2163c888e34295fffffdf73841ca8e79b2a548042393510fb9ae"),
    ),
    "nanodet_m_320": (
        f"{LITE}/nanodet_m-opt",
        (17808, "c36d2ed7302860b6e39f1f7a744b530f10f0b43975e41526001e4e0d7ce214d8"),
        (3767672, "0419136843f821e21b08629632fd23c0f3601dea54645b10a0ddad284fd4473c"),
    ),
    "nanodet_m_05x_320": (
        f"{LITE}/nanodet_m_0.5x-opt",
        (17673, "0e9d468bfb3f3d92f4f56cf7077305952a14b71130102c2f2fb27a9b9aed7ee9"),
        (1068208, "5553752fe63c7929b93b3e62ef27cb3533e39d84ec3566919f584600c9a5b171"),
    ),
}


def remotes(name: str, mirror: str | None) -> list[Remote]:
    """The graph and the weights of a detector."""
    place, *facts = FILES[name]
    base = f"{(mirror or GITHUB).rstrip('/')}/{place}"
    kinds = zip(("param", "bin"), facts, strict=True)
    return [Remote(f"{name}.{kind}", f"{base}.{kind}", size, sha256=digest) for kind, (size, digest) in kinds]


def convolutions_of(output: Tensor, names: dict[Tensor, str]) -> Iterator[str]:
    """The names of the convolutions that made a tensor, in the order of :func:`tools.ncnn.in_order_of_need`."""
    seen = set()

    def behind(node) -> Iterator[str]:
        if node is None or node in seen:
            return
        seen.add(node)
        if node.name() == "ConvolutionBackward0":
            needed, (weight, _), _ = node.next_functions
            yield from behind(needed[0])
            yield names[weight.variable]
        else:
            for needed, _ in node.next_functions:
                yield from behind(needed)

    yield from behind(output.grad_fn)


def class_convolutions(detector: nn.Module) -> list[str]:
    """The names of a detector's convolutions as far as its class logits need them, level by level."""
    names = {p: name.removesuffix(".weight") for name, p in detector.named_parameters() if name.endswith(".weight")}
    # the shape of what it sees decides nothing
    logits, _ = detector.bbox_head(detector.neck(detector.backbone(torch.zeros(1, 3, 64, 64))))
    return list(convolutions_of(torch.cat([level.flatten() for level in logits]), names))


def weights_of(detector: nn.Module, found: list[Convolution]) -> dict[str, Tensor]:
    """A state dict of the detector from convolutions in the order of need.

    One tower of a NanoDet serves both branches, so that mmdet's two get the same; its last convolution gives class
    logits, then the distributions of the box sides.

    Raises:
        DataError: they are those of another detector.
    """
    state, names = detector.state_dict(), class_convolutions(detector)
    if len(names) != len(found):
        raise DataError(f"{len(found)} convolutions, where this detector has {len(names)}")

    def put(name: str, convolution: Convolution, rows: slice = slice(None)) -> None:
        for kind, values in (("weight", convolution.weight), ("bias", convolution.bias)):
            key, own = f"{name}.{kind}", torch.from_numpy(values[rows].copy())
            if state[key].shape != own.shape:
                raise DataError(f"{key}: {tuple(own.shape)}, where this detector has {tuple(state[key].shape)}")
            state[key] = own

    for name, convolution in zip(names, found, strict=True):
        if ".gfl_cls." in name:
            classes = detector.bbox_head.cls_out_channels
            put(name, convolution, slice(classes))
            put(name.replace("gfl_cls", "gfl_reg"), convolution, slice(classes, None))
        else:
            put(name, convolution)
            if ".cls_convs." in name:
                put(name.replace("cls_convs", "reg_convs"), convolution)
    return state


def convert(name: str, graph: Path, weights: Path, target: Path) -> None:
    """Write a checkpoint for the config of this name from files for ncnn.

    Raises:
        DataError: they are no such files, or those of another detector.
    """
    detector = untrained(Config.fromfile(CONFIGS / f"{name}.py").model)
    try:
        layers = read_graph(graph.read_text(encoding="utf-8"))
        by_output = read_convolutions(layers, weights.read_bytes())
        found = [by_output[layer.outputs[0]] for layer in in_order_of_need(layers) if layer.kind in CONVOLUTIONS]
        detector.load_state_dict(weights_of(detector, found))
    except DataError as error:
        raise DataError(f"{graph}, {weights}: {error}") from None
    export(detector, target, DATASETS.get("CocoDataset").METAINFO["classes"])


def main() -> None:
    args = command_parser("nanodet", "tools").parse_args()
    root = args.root.expanduser()
    for name in FILES:
        target = root / f"{name}.pth"
        if target.is_file():
            print(f"{target}: was there")
            continue
        files = [fetch(remote, root) for remote in remotes(name, args.mirror)]
        convert(name, *files, target)
        for file in files:
            file.unlink()
        print(target)


if __name__ == "__main__":
    run_cli(main, DataError)
