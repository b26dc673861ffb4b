"""A tiny CrowdHuman tree, for tests."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmark.data.checks import DataError
from benchmark.experiment.settings import Dataset
from benchmark.experiment.workspace import HERE
from benchmark.prepare import prepare

FIRST = "273271,1a0d6000b9e1f5b7"
#: (width, height) of each image
SIZES = {FIRST: (64, 48), "b,2": (50, 40), "c,3": (30, 60), "v,1": (64, 48), "v,2": (40, 30)}
LINES = {
    "train": [
        {
            "ID": FIRST,
            "gtboxes": [
                {
                    "tag": "person",
                    "fbox": [10, 5, 20, 30],
                    "vbox": [11, 6, 10, 12],
                    "hbox": [14, 5, 6, 7],
                    "extra": {"box_id": 0, "occ": 1},
                    "head_attr": {"ignore": 1, "unsure": 0, "occ": 0},
                },
                {"tag": "person", "fbox": [-8, -4, 30, 60], "extra": {"ignore": 0}},
                {"tag": "mask", "fbox": [40, 0, 20, 20], "extra": {"ignore": 1}},
            ],
        },
        {
            "ID": "b,2",
            "gtboxes": [
                {"tag": "person", "fbox": [0, 0, 10, 11], "extra": {"ignore": 1}},
                {"tag": "person", "fbox": [1.5, 2, 3, 4]},
                {"tag": "mask", "fbox": [20, 20, 2, 3]},
            ],
        },
        {"ID": "c,3", "gtboxes": []},
    ],
    "val": [
        {"ID": "v,1", "gtboxes": [{"tag": "person", "fbox": [5, 5, 60, 20]}]},
        {"ID": "v,2", "gtboxes": [{"tag": "mask", "fbox": [0, 0, 9, 9], "extra": {"ignore": 1}}]},
    ],
}
#: TRAIN by hand: boxes as they are, everything to ignore a crowd
COCO = {
    "images": [
        {"id": 1, "file_name": f"{FIRST}.jpg", "width": 64, "height": 48},
        {"id": 2, "file_name": "b,2.jpg", "width": 50, "height": 40},
        {"id": 3, "file_name": "c,3.jpg", "width": 30, "height": 60},
    ],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 5, 20, 30], "area": 600, "iscrowd": 0},
        {"id": 2, "image_id": 1, "category_id": 1, "bbox": [-8, -4, 30, 60], "area": 1800, "iscrowd": 0},
        {"id": 3, "image_id": 1, "category_id": 1, "bbox": [40, 0, 20, 20], "area": 400, "iscrowd": 1},
        {"id": 4, "image_id": 2, "category_id": 1, "bbox": [0, 0, 10, 11], "area": 110, "iscrowd": 1},
        {"id": 5, "image_id": 2, "category_id": 1, "bbox": [1.5, 2, 3, 4], "area": 12, "iscrowd": 0},
        {"id": 6, "image_id": 2, "category_id": 1, "bbox": [20, 20, 2, 3], "area": 6, "iscrowd": 1},
    ],
    "categories": [{"id": 1, "name": "person"}],
}


@pytest.fixture(autouse=True)
def stand_aside(tmp_path, monkeypatch):
    """`prepare` writes to the folder that it is run in."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def write_image(path: Path, size: tuple[int, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    assert cv2.imwrite(str(path), noise)


def write_lines(path: Path, lines: list) -> None:
    """Text stays as it is, everything else becomes JSON."""
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))


@pytest.fixture
def tree(tmp_path) -> Path:
    """A CrowdHuman tree of five images."""
    root = tmp_path / "crowd"
    for name, size in SIZES.items():
        write_image(root / "Images" / f"{name}.jpg", size)
    for split, lines in LINES.items():
        write_lines(root / f"annotation_{split}.odgt", lines)
    return root


def asked(root: Path, **settings) -> Dataset:
    return Dataset("crowdhuman", root=str(root), **{"verify": False, **settings})


def error_of(settings: Dataset) -> str:
    with pytest.raises(DataError) as caught:
        prepare("crowd", settings)
    assert not HERE.dataset("crowd").exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def content_of(path: str) -> dict:
    return json.loads(Path(path).read_text())
