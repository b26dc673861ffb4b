"""A tiny COCO tree, for tests."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

NAMES = {"train": "train2017", "val": "val2017"}
#: of all images, pixels
WIDTH, HEIGHT = 64, 48
COUNTS = {"train": 4, "val": 3}
#: of every image
BOXES = [[4, 4, 20, 10], [30, 20, 20.5, 20], [40, 2, 20, 12]]


def name_of(split: str, number: int) -> str:
    return f"{split}{number}.png"


def content_of(split: str) -> dict:
    """Four images of three objects each, one of them a crowd in every other image."""
    images = [
        {"id": 10 + i, "file_name": name_of(split, i), "width": WIDTH, "height": HEIGHT} for i in range(COUNTS[split])
    ]
    annotations = [
        {
            "id": 1 + len(BOXES) * i + k,
            "image_id": image["id"],
            "category_id": 3 + 4 * (k % 2),
            "bbox": box,
            "area": box[2] * box[3],
            "iscrowd": int(k == 2 and i % 2),
        }
        for i, image in enumerate(images)
        for k, box in enumerate(BOXES)
    ]
    return {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 3, "name": "a"}, {"id": 7, "name": "b"}],
    }


def annotations_of(root: Path, split: str = "train") -> Path:
    return root / "annotations" / f"instances_{NAMES[split]}.json"


def image_of(root: Path, number: int = 0, split: str = "train") -> Path:
    return root / NAMES[split] / name_of(split, number)


def write_image(path: Path, size: tuple[int, int] = (WIDTH, HEIGHT), **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, **options)


def write_tree(root: Path) -> Path:
    """Images and annotations of both splits."""
    for split in NAMES:
        annotations_of(root, split).parent.mkdir(parents=True, exist_ok=True)
        annotations_of(root, split).write_text(json.dumps(content_of(split)))
        for number in range(COUNTS[split]):
            write_image(image_of(root, number, split))
    return root


def edit(path: Path, change: Callable[[dict], object]) -> None:
    """Change the content of a JSON file in place."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
