"""minicoco: a deterministic COCO-format detection set of a small, hard world. ``python -m benchmark.data.minicoco``

160x160 images, ten categories (:mod:`benchmark.data.sprites`), 2 to 9 objects an image from 6% to 60% of its side,
with occlusion, truncation, clutter, changing light, crowd regions and empty images. Image number ``i`` of a split is a
function of (seed, split, i) alone, so that a part can be drawn again and compared.
"""

from __future__ import annotations

if __name__ == "__main__":
    # help and usage errors come before the imports that take seconds
    from benchmark.experiment.cli import answer_early

    answer_early("data.minicoco")

import json
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from benchmark.data.archive import Split, jpeg, new_archive
from benchmark.data.scene import Instance, random_scene
from benchmark.data.sprites import CATEGORIES
from benchmark.experiment.cli import command_parser

SEED = 20220305
SIZE = (160, 160)
LENGTHS = (0.06, 0.60)
COUNTS = (2, 9)
CROWD_RATE = 0.03
EMPTY_RATE = 0.03
JPEG_QUALITY = 88

SPLITS = (Split("train", 0, 2000), Split("val", 1, 500))


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


def render(split: Split, index: int) -> tuple[np.ndarray, list[Instance]]:
    """Image ``index`` of ``split`` as uint8 RGB, with its instances."""
    rng = np.random.default_rng([SEED, split.number, index])
    return random_scene(rng, SIZE, LENGTHS, COUNTS, CROWD_RATE, EMPTY_RATE)


def file_name(split: Split, index: int) -> str:
    return f"{split.name}{index:05d}.jpg"


def _encoded(split: Split, index: int) -> tuple[bytes, list[dict]]:
    image, instances = render(split, index)
    return jpeg(image, JPEG_QUALITY), annotate(instances, index + 1, 0)


def coco_json(split: Split, annotations: list[list[dict]]) -> dict:
    """The split's COCO dictionary from its images' annotations, which get running ids from 1."""
    flat = [a for image in annotations for a in image]
    return {
        "info": {"description": "minicoco", "version": "1", "seed": SEED},
        "licenses": [],
        "images": [
            {"id": i + 1, "file_name": file_name(split, i), "height": SIZE[0], "width": SIZE[1]}
            for i in range(len(annotations))
        ],
        "annotations": [{**a, "id": i} for i, a in enumerate(flat, start=1)],
        "categories": [{"id": i, "name": name, "supercategory": "thing"} for i, name in enumerate(CATEGORIES, 1)],
    }


def generate(archive: Path, workers: int = 2, splits: tuple[Split, ...] = SPLITS) -> None:
    """Write the whole set into one archive; equal content gives equal bytes."""
    with new_archive(archive) as out, ProcessPoolExecutor(workers) as pool:
        for split in splits:
            jobs = pool.map(partial(_encoded, split), range(split.images), chunksize=16)
            annotations = []
            for i, (data, found) in enumerate(tqdm(jobs, total=split.images, desc=f"minicoco {split.name}")):
                out.add(f"{split.name}/{file_name(split, i)}", data)
                annotations.append(found)
            content = json.dumps(coco_json(split, annotations), separators=(",", ":"))
            out.add(f"annotations/{split.name}.json", content.encode())


def main() -> None:
    args = command_parser("data.minicoco").parse_args()
    generate(args.archive, args.workers)
    print(f"{args.archive}: {args.archive.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
