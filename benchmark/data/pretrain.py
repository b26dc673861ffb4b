"""Backbones that can see: each mini backbone is trained as a classifier of single-object crops, as ImageNet is to COCO.

``python -m benchmark.data.pretrain resnet18_c16 resnet34_c16`` writes ``data/pretrained/<name>.pth`` (backbone weights
only) and a JSON record beside it. Crops come from :func:`benchmark.data.scene.crop_of_one` with seeds of their own:
no detection image is ever shown. The files are pinned by ``data.dvc``; run this only to make new ones.
"""

from __future__ import annotations

if __name__ == "__main__":
    # help and usage errors come before the imports that take seconds
    from benchmark.experiment.cli import answer_early

    answer_early("data.pretrain")

import json
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

import pgd.plugin  # noqa: F401  serves mmcv's operators, which mmdet imports
from benchmark.data.scene import crop_of_one
from benchmark.data.sprites import CATEGORIES
from benchmark.experiment.cli import command_parser
from pgd.checkpoint import atomic_save

CROP_SEED = 19690720
#: What the detectors' data preprocessor subtracts and divides by: ImageNet's RGB statistics.
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


@dataclass(frozen=True)
class Recipe:
    """How one backbone is pretrained."""

    depth: int
    base_channels: int
    crops: int = 24_000
    test_crops: int = 2_000
    side: int = 48
    epochs: int = 10
    batch_size: int = 32
    lr: float = 2e-3
    weight_decay: float = 0.05
    seed: int = 0


BACKBONES = {
    "resnet18_c16": Recipe(18, 16),
    "resnet34_c16": Recipe(34, 16),
    "resnet18_c8": Recipe(18, 8, epochs=3),
}


def _crops_of(job: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    part, count, side = job
    rng = np.random.default_rng([CROP_SEED, part])
    images = np.empty((count, side, side, 3), np.uint8)
    labels = np.empty(count, np.int64)
    for i in range(count):
        images[i], labels[i] = crop_of_one(rng, side)
    return images, labels


def make_crops(count: int, side: int, first_part: int, cache: Path, workers: int = 2) -> tuple[Tensor, Tensor]:
    """``count`` crops as uint8 ``[n, 3, side, side]`` and labels ``[n]``, in seeded parts of 500, kept in ``cache``."""
    file = cache / f"crops_{count}_{side}_{first_part}.pt"
    if file.is_file():
        return torch.load(file, weights_only=True)
    jobs = [(first_part + i, min(500, count - 500 * i), side) for i in range((count + 499) // 500)]
    with ProcessPoolExecutor(workers) as pool:
        done = list(tqdm(pool.map(_crops_of, jobs), total=len(jobs), desc="drawing crops"))
    images, labels = zip(*done, strict=True)
    crops = torch.from_numpy(np.concatenate(images)).permute(0, 3, 1, 2).contiguous()
    atomic_save((crops, torch.from_numpy(np.concatenate(labels))), file)
    return torch.load(file, weights_only=True)


def build_backbone(recipe: Recipe) -> nn.Module:
    """The same ResNet that the detector configs build."""
    from mmdet.models import ResNet

    return ResNet(recipe.depth, base_channels=recipe.base_channels, norm_cfg={"type": "BN"}, norm_eval=False)


def normalise(images: Tensor) -> Tensor:
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD))
    return (images.float() - mean) / std


def accuracy(backbone: nn.Module, classify: nn.Module, images: Tensor, labels: Tensor) -> float:
    backbone.eval()
    with torch.no_grad():
        hits = [
            (classify(backbone(normalise(x))[-1].mean(dim=(2, 3))).argmax(1) == y).float()
            for x, y in zip(images.split(256), labels.split(256), strict=True)
        ]
    backbone.train()
    return float(torch.cat(hits).mean())


def pretrain(recipe: Recipe, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]) -> tuple[nn.Module, dict]:
    """Train one backbone; returns it and a record with crop accuracy and seconds."""
    torch.manual_seed(recipe.seed)
    start = time.perf_counter()
    backbone = build_backbone(recipe)
    backbone.init_weights()
    classify = nn.Linear(8 * recipe.base_channels, len(CATEGORIES))
    parameters = [*backbone.parameters(), *classify.parameters()]
    optimiser = torch.optim.AdamW(parameters, recipe.lr, weight_decay=recipe.weight_decay)
    images, labels = train
    steps = len(images) // recipe.batch_size
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.lr, total_steps=steps * recipe.epochs)
    with tqdm(total=steps * recipe.epochs, desc=f"R{recipe.depth} c{recipe.base_channels}") as bar:
        for _ in range(recipe.epochs):
            for batch in torch.randperm(len(images))[: steps * recipe.batch_size].split(recipe.batch_size):
                x, y = images[batch], labels[batch]
                flip = torch.rand(len(x)) < 0.5
                x = torch.where(flip.view(-1, 1, 1, 1), x.flip(3), x)
                loss = F.cross_entropy(classify(backbone(normalise(x))[-1].mean(dim=(2, 3))), y, label_smoothing=0.05)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
                bar.update()
                bar.set_postfix(loss=f"{loss.item():.3f}")
    record = {
        **asdict(recipe),
        "accuracy": round(accuracy(backbone, classify, *test), 4),
        "seconds": round(time.perf_counter() - start),
        "torch": torch.__version__,
    }
    return backbone, record


def main() -> None:
    args = command_parser("data.pretrain").parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    recipes = [BACKBONES[name] for name in args.names]
    crops, side = max(r.crops for r in recipes), recipes[0].side
    train = make_crops(crops, side, 0, args.cache)
    test = make_crops(recipes[0].test_crops, side, 1_000_000, args.cache)
    for name, recipe in zip(args.names, recipes, strict=True):
        backbone, record = pretrain(recipe, train, test)
        # Half precision for the convolutions keeps the pinned files small; loading casts back.
        state = {k: v.half() if v.dim() > 1 else v for k, v in backbone.state_dict().items()}
        torch.save(state, args.out / f"{name}.pth")
        (args.out / f"{name}.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        print(f"{name}: {record}")


if __name__ == "__main__":
    main()
