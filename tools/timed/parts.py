"""The other parts of an experiment: evaluation, deformable convolutions, start-up."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torchvision.ops import deform_conv2d

from benchmark.experiment.config import DatasetInfo
from pgd.deformable import Geometry, deform_conv
from pgd.evaluation import matching
from tools.timed.bench import Bench
from tools.timed.children import called
from tools.timed.extent import Extent
from tools.timed.turns import in_turns, over, spreads

REFERENCE, HERE = "pycocotools", "here"
#: of an image's detections those near one of its objects
NEAR = 0.7
#: the start of a command, as its module does it
BEGIN = (
    "import sys; sys.argv = ['train', 'teacher', 'gfl']; from benchmark.experiment.cli import answer_early; "
    "answer_early('train'); import benchmark.train"
)
STEP = f"{BEGIN}; from tools.timed.bench import first_step; first_step(sys.stdin.read())"
IMPORTS, FIRST, HELP = "training, imports", "training, first step done", "--help"


def drawn(content: dict, count: int) -> list[dict]:
    """COCO results of so many detections an image: most near its objects with their classes, some of other classes."""
    rng, found = np.random.default_rng(0), []
    categories = [category["id"] for category in content["categories"]]
    everything = np.array([(*a["bbox"], a["category_id"]) for a in content["annotations"]])
    owners = np.array([a["image_id"] for a in content["annotations"]])
    for image in content["images"]:
        own = everything[owners == image["id"]]
        chosen = everything[rng.integers(len(everything), size=count)]
        if len(own):
            near = rng.random(count) < NEAR
            chosen[near] = own[rng.integers(len(own), size=int(near.sum()))]
        boxes = chosen[:, :4] * rng.uniform(0.9, 1.1, (count, 4))
        labels = np.where(rng.random(count) < 0.9, chosen[:, 4], rng.choice(categories, size=count))
        found += [
            {"image_id": image["id"], "category_id": int(k), "bbox": box.tolist(), "score": float(score)}
            for k, box, score in zip(labels, boxes, rng.random(count), strict=True)
        ]
    return found


def version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def evaluation(data: DatasetInfo, extent: Extent) -> dict[str, Any]:
    """COCO's twelve figures of a whole validation set, by pycocotools and as it is here: times, and the figures."""
    content = json.loads(Path(data.val_annotations).read_text(encoding="utf-8"))
    found = drawn(content, extent.detections)
    ranges = (0, 1e10), (0, data.areas[0]), tuple(data.areas), (data.areas[1], 1e10)

    def by(**library: Any) -> list[float]:
        return matching.figures(matching.evaluated(content, found, ranges, **library))

    # which warms up, too
    here, reference = by(), by(library=None)
    variants = {REFERENCE: lambda turn: by(library=None), HERE: lambda turn: by()}
    times = in_turns(variants, extent.share(0.15), "evaluation", 0)
    return {
        "library": f"hotcoco {version('hotcoco')}" if matching.fast is not None else REFERENCE,
        "images": len(content["images"]),
        "detections": len(found),
        "AP": round(100 * reference[0], 2),
        "largest difference": max(abs(a - b) for a, b in zip(here, reference, strict=True)),
        "ms": spreads(times),
        "pycocotools / here": over(times[REFERENCE], times[HERE]),
    }


def deformable(extent: Extent) -> dict[str, Any]:
    """Of eight images of 160 pixels on the finest level of DDOD's mini head, there and back."""
    shapes = (8, 32, 20, 20), (32, 32, 3, 3), (8, 18, 20, 20)
    inputs = [torch.randn(shape, requires_grad=True) for shape in shapes]
    geometry = Geometry((1, 1), (1, 1), (1, 1), 1, 1)
    variants = {
        "torchvision": lambda turn: deform_conv2d(inputs[0], inputs[2], inputs[1], padding=1).sum().backward(),
        "here": lambda turn: deform_conv(*inputs, None, None, geometry).sum().backward(),
    }
    times = in_turns(variants, extent.turns, "deformable convolution", extent.warm_up)
    return {"ms": spreads(times), "torchvision / here": over(times["torchvision"], times["here"])}


def start(bench: Bench) -> dict[str, Any]:
    """Milliseconds of whole processes: the imports of a training, a training up to the end of its first step (without
    what its plan and its teacher's features take), and help."""
    text = bench.as_text()
    variants = {
        IMPORTS: lambda turn: called(["-c", BEGIN]),
        FIRST: lambda turn: called(["-c", STEP], text),
        HELP: lambda turn: called(["-m", "benchmark.train", "--help"]),
    }
    # the first time files may come from the disk
    return {"ms": spreads(in_turns(variants, bench.extent.starts, "start-up", bench.extent.warm_up - 1))}
