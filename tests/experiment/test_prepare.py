"""Data that is missing or broken is an error that names the file; good data is left where it lies."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pytest

from benchmark import prepare as stage
from benchmark.data.checks import check_split, subset, unpack
from benchmark.data.faults import DataError
from benchmark.data.minicoco import MINI as WORLD
from benchmark.experiment.config import DatasetInfo
from benchmark.experiment.settings import Dataset
from benchmark.experiment.workspace import HERE
from benchmark.prepare import MINI_AREAS, prepare
from pgd.evaluation.coco import COCO_AREAS

MINI = Dataset("minicoco")
NAMES = {"train": "train2017", "val": "val2017"}


@pytest.fixture(autouse=True)
def stand_aside(tmp_path, monkeypatch):
    """`prepare` writes to the folder that it is run in."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def tree(tmp_path, tiny_data) -> Path:
    """A COCO tree of mini images."""
    root = tmp_path / "coco"
    (root / "annotations").mkdir(parents=True)
    for split, name in NAMES.items():
        shutil.copytree(getattr(tiny_data, f"{split}_images"), root / name)
        shutil.copy(getattr(tiny_data, f"{split}_annotations"), root / "annotations" / f"instances_{name}.json")
    return root


def annotations_of(root: Path, split: str = "train") -> Path:
    return root / "annotations" / f"instances_{NAMES[split]}.json"


def content_of(path: Path) -> dict:
    return json.loads(path.read_text())


def edit(path: Path, change) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def error_of(root: Path, tmp_path: Path) -> str:
    with pytest.raises(DataError) as caught:
        prepare("coco", Dataset("coco", root=str(root)))
    assert not HERE.dataset("coco").exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_good_tree(tree, tmp_path, tiny_data, capsys):
    info = prepare("coco", Dataset("coco", root=str(tree)))
    assert info == DatasetInfo.load("coco")
    assert info.name == "coco"
    assert info.classes == tiny_data.classes
    assert info.areas == list(COCO_AREAS)
    assert info.val_annotations == str(annotations_of(tree, "val"))
    assert (info.metric, info.val_odgt) == ("coco", None)
    assert "coco train: 12 images" in capsys.readouterr().out


def test_files_from_before_there_were_metrics(tree):
    info = prepare("coco", Dataset("coco", root=str(tree)))
    edit(HERE.dataset("coco"), lambda content: [content.pop(key) for key in ("metric", "val_odgt")])
    assert DatasetInfo.load("coco") == info


def test_every_kind_can_be_located():
    assert tuple(stage.LOCATE) == get_args(get_type_hints(Dataset)["kind"])


def test_coco_sample(coco_sample, tmp_path):
    info = prepare("sample", Dataset("coco", root=str(coco_sample)))
    out = HERE.dataset("sample")
    assert len(info.classes) == 80
    assert info.classes[0] == "person"
    assert info.classes[-1] == "toothbrush"
    assert (info.train_images, info.val_images) == (str(coco_sample / "train2017"), str(coco_sample / "val2017"))
    assert info.train_annotations == str(coco_sample / "annotations" / "instances_train2017.json")
    assert [p.name for p in out.parent.rglob("*")] == ["dataset.json"], "images are never copied"


def test_subset_of_the_coco_sample(coco_sample, tmp_path):
    info = prepare("coco", Dataset("coco", root=str(coco_sample), train_images=9, val_images=4))
    out = HERE.dataset("coco")
    whole = content_of(coco_sample / "annotations" / "instances_train2017.json")
    part = content_of(Path(info.train_annotations))
    assert Path(info.train_annotations).parent == out.parent
    assert part["images"] == whole["images"][:9]
    assert part["categories"] == whole["categories"]
    ids = {i["id"] for i in part["images"]}
    assert part["annotations"] == [a for a in whole["annotations"] if a["image_id"] in ids]
    assert 0 < len(part["annotations"]) < len(whole["annotations"])
    assert len(content_of(Path(info.val_annotations))["images"]) == 4


def test_subset_larger_than_the_whole():
    content = {"images": [{"id": 3}], "annotations": [{"image_id": 3}], "categories": [1], "info": 5}
    assert subset(content, 7) == content
    assert subset(content, 0)["annotations"] == []


def test_missing_root(tmp_path):
    assert error_of(tmp_path / "gone", tmp_path) == f"root: {tmp_path / 'gone'} is no folder"


@pytest.mark.parametrize("split", ["train", "val"])
def test_missing_parts(tree, tmp_path, split):
    path = annotations_of(tree, split)
    images = tree / NAMES[split]
    images.rename(tmp_path / "away")
    assert error_of(tree, tmp_path).startswith(f"{images}: no such folder")
    path.unlink()
    assert error_of(tree, tmp_path) == f"{path}: missing"


@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_truncated_json(tree, tmp_path, share):
    path = annotations_of(tree)
    text = path.read_text()
    path.write_text(text[: int(share * len(text))])
    said = error_of(tree, tmp_path)
    assert said.startswith(f"{path}: not valid JSON, probably truncated")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\xff\xd8\xff\xe0\x00", "not valid JSON"),
        (b"[]", "no list 'images'; is this a COCO instances file?"),
        (b'{"images": [1], "annotations": {}, "categories": []}', "no list 'annotations'"),
        (b'{"images": [1], "annotations": []}', "no list 'categories'"),
    ],
    ids=["a_picture", "a_list", "a_mapping", "categories"],
)
def test_json_of_something_else(tree, tmp_path, data, words):
    annotations_of(tree).write_bytes(data)
    said = error_of(tree, tmp_path)
    assert said.startswith(f"{annotations_of(tree)}: ")
    assert words in said


def test_absent_images_are_counted(tree, tmp_path):
    for name in ("train00003.jpg", "train00007.jpg"):
        (tree / "train2017" / name).unlink()
    assert error_of(tree, tmp_path) == (
        f"{annotations_of(tree)}: 2 missing images (image 4 (train00003.jpg); image 8 (train00007.jpg)); copy the "
        "files or mend file_name, which starts from the images' folder, or leave these out by broken: skip"
    )


def test_categories_must_agree(tree, tmp_path):
    train, val = annotations_of(tree), annotations_of(tree, "val")
    edit(val, lambda c: c["categories"].reverse())
    said = f"{val}: the categories differ from those of {train} "
    assert error_of(tree, tmp_path).startswith(f"{said}in their order, by which mmdet numbers classes; make")
    edit(val, lambda c: c["categories"][0].update(name="other"))
    assert error_of(tree, tmp_path) == f"{said}in names; make the lists equal"


def test_check_split_returns_the_content(tree):
    split = check_split(annotations_of(tree), tree / "train2017")
    assert split.content == content_of(annotations_of(tree))
    assert split.listed == 12
    assert split.changes == {}


@pytest.fixture
def archive(tmp_path, tiny_data, monkeypatch) -> Path:
    """A small archive in the mini set's place."""
    path = tmp_path / "data" / "minicoco.zip"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as out:
        for split in WORLD.splits:
            for image in sorted(Path(getattr(tiny_data, f"{split.name}_images")).iterdir()):
                out.write(image, f"{split.name}/{image.name}")
            out.write(getattr(tiny_data, f"{split.name}_annotations"), f"annotations/{split.name}.json")
    monkeypatch.setattr(stage, "ARCHIVE", path)
    return path


def test_archive(archive, tmp_path, monkeypatch, tiny_data):
    out = HERE.dataset("mine")
    with pytest.raises(DataError, match=r"minicoco\.zip: 12 train images, expected 2000"):
        prepare("mine", MINI)
    monkeypatch.setattr(stage, "MINI_IMAGES", {"train": 12, "val": 6})
    leftover = out.parent / "minicoco" / "train" / "old.jpg"
    leftover.write_bytes(b"x")
    first = prepare("mine", MINI).digest
    info = prepare("mine", Dataset("minicoco", train_images=3))
    assert info.digest != first == prepare("other", MINI).digest, "the digest is of the content"
    assert not leftover.exists()
    assert info.areas == list(MINI_AREAS)
    assert info.classes == tiny_data.classes
    assert Path(info.train_images, "train00011.jpg").read_bytes() == (
        Path(tiny_data.train_images, "train00011.jpg").read_bytes()
    )
    assert info.train_annotations == str(out.parent / "train_first3.json")
    assert info.val_annotations == str(out.parent / "minicoco" / "annotations" / "val.json")


def test_missing_archive(tmp_path, monkeypatch):
    monkeypatch.setattr(stage, "ARCHIVE", tmp_path / "gone.zip")
    with pytest.raises(DataError, match=r"gone\.zip: missing; `dvc pull data`"):
        prepare("mine", MINI)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_truncated_archive(archive, tmp_path, share):
    os.truncate(archive, int(share * archive.stat().st_size))
    with pytest.raises(DataError) as caught:
        prepare("mine", MINI)
    assert str(caught.value).startswith(f"{archive}: truncated or damaged (")
    assert not list(Path("work").rglob("minicoco")), "no half-unpacked set is left"


@pytest.mark.parametrize(("offset", "value"), [(6, 99), (8, 1), (10, 1), (10, 8), (16, 255)])
def test_damaged_directory(archive, tmp_path, offset, value):
    """Version, flags, method and checksum of the first entry in the archive's directory."""
    data = bytearray(archive.read_bytes())
    data[data.index(b"PK\x01\x02") + offset] ^= value
    archive.write_bytes(data)
    with pytest.raises(DataError, match=r"minicoco\.zip: truncated or damaged"):
        unpack(archive, tmp_path / "out")


def test_damaged_archive(archive, tmp_path):
    """Bytes that flip anywhere are noticed: by the checksums, or since the directory makes no sense."""
    whole, rng = archive.read_bytes(), np.random.default_rng(0)
    end = len(whole)
    places = [*rng.integers(0, end, 20), *rng.integers(end - 1500, end, 40)]
    noticed = 0
    for place in places:
        data = bytearray(whole)
        data[place] ^= int(rng.integers(1, 256))
        archive.write_bytes(data)
        try:
            unpack(archive, tmp_path / "out")
        except DataError as error:
            noticed += 1
            assert str(archive) in str(error)
    assert noticed > 40
