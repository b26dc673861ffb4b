"""Deterministic COCO-format detection sets of a small, hard world. ``python -m benchmark.data.minicoco``

160x160 images, ten categories (:mod:`benchmark.data.sprites`), with occlusion, truncation, clutter, changing light,
crowd regions and empty images. *minicoco* has 2 to 9 objects an image from 6% to 60% of its side and lies in ``data/``
as an archive; *midicoco* has fewer and larger ones, 20% to 95%, so that a key region is a small part of a box, and more
images, and is drawn where it is needed (:func:`write`). Image number ``i`` of a split is a function of (seed, split, i)
alone, so that a part can be drawn again and compared.
"""

from __future__ import annotations

if __name__ == "__main__":
    # help and usage errors come before the imports that take seconds
    from benchmark.experiment.cli import answer_early

    answer_early("data.minicoco")

import json
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from benchmark.data.archive import Split, jpeg, new_archive
from benchmark.data.scene import Instance, random_scene
from benchmark.data.sprites import CATEGORIES
from benchmark.experiment.cli import command_parser

SIZE = (160, 160)
CROWD_RATE = 0.03
JPEG_QUALITY = 88


@dataclass(frozen=True)
class World:
    """What tells one of these sets from another."""

    name: str
    seed: int
    #: shortest and longest object, as a fraction of the image's side
    lengths: tuple[float, float]
    #: fewest and most objects an image
    counts: tuple[int, int]
    #: chance of an image without objects
    empty_rate: float
    splits: tuple[Split, ...]


MINI = World("minicoco", 20220305, (0.06, 0.60), (2, 9), 0.03, (Split("train", 0, 2000), Split("val", 1, 500)))
MIDI = World("midicoco", 20220312, (0.20, 0.95), (1, 5), 0.02, (Split("train", 0, 6000), Split("val", 1, 1000)))


def annotate(instances: list[Instance], image_id: int, first_id: int) -> list[dict]:
    """COCO annotations: boxes ``[x, y, w, h]`` tight around the visible pixels, area in pixels."""
    annotations = []
    for instance in instances:
        rows, cols = np.flatnonzero(instance.mask.any(axis=1)), np.flatnonzero(instance.mask.any(axis=0))
        x, y = int(cols[0]), int(rows[0])
        w, h = int(cols[-1]) - x + 1, int(rows[-1]) - y + 1
        annotations.append(
            {
                "id": first_id + len(annotations),
                "image_id": image_id,
                "category_id": instance.category_id,
                "bbox": [x, y, w, h],
                "area": int(instance.mask.sum()),
                "iscrowd": int(instance.iscrowd),
                "segmentation": [],
            }
        )
    return annotations


def render(world: World, split: Split, index: int) -> tuple[np.ndarray, list[Instance]]:
    """Image ``index`` of ``split`` as uint8 RGB, with its instances."""
    rng = np.random.default_rng([world.seed, split.number, index])
    return random_scene(rng, SIZE, world.lengths, world.counts, CROWD_RATE, world.empty_rate)


def file_name(split: Split, index: int) -> str:
    return f"{split.name}{index:05d}.jpg"


def _encoded(world: World, split: Split, index: int) -> tuple[bytes, list[dict]]:
    image, instances = render(world, split, index)
    return jpeg(image, JPEG_QUALITY), annotate(instances, index + 1, 0)


def coco_json(world: World, split: Split, annotations: list[list[dict]]) -> dict:
    """The split's COCO dictionary from its images' annotations, which get running ids from 1."""
    flat = [a for image in annotations for a in image]
    return {
        "info": {"description": world.name, "version": "1", "seed": world.seed},
        "licenses": [],
        "images": [
            {"id": i + 1, "file_name": file_name(split, i), "height": SIZE[0], "width": SIZE[1]}
            for i in range(len(annotations))
        ],
        "annotations": [{**a, "id": i} for i, a in enumerate(flat, start=1)],
        "categories": [{"id": i, "name": name, "supercategory": "thing"} for i, name in enumerate(CATEGORIES, 1)],
    }


def write(world: World, put: Callable[[str, bytes], object], workers: int | None = None) -> None:
    """Draw a whole set: ``put`` gets the name of each file (images, then each split's annotations) and its bytes."""
    with ProcessPoolExecutor(workers) as pool:
        for split in world.splits:
            jobs = pool.map(partial(_encoded, world, split), range(split.images), chunksize=16)
            annotations = []
            bar = tqdm(jobs, total=split.images, desc=f"drawing {world.name} {split.name}", mininterval=2)
            for i, (data, found) in enumerate(bar):
                put(f"{split.name}/{file_name(split, i)}", data)
                annotations.append(found)
            content = json.dumps(coco_json(world, split, annotations), separators=(",", ":"))
            put(f"annotations/{split.name}.json", content.encode())


def generate(archive: Path, workers: int = 2, world: World = MINI) -> None:
    """Write a whole set into one archive; equal content gives equal bytes."""
    with new_archive(archive) as out:
        write(world, out.add, workers)


def main() -> None:
    args = command_parser("data.minicoco").parse_args()
    generate(args.archive, args.workers)
    print(f"{args.archive}: {args.archive.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
