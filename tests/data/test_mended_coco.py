"""COCO files that lack something or write it unusually: it is computed and counted, and no object is lost."""

from __future__ import annotations

import json
import os
import unicodedata
from pathlib import Path

import pytest
from mmdet.datasets import CocoDataset
from support.bad_coco import Change, every, one, whole
from support.coco_tree import (
    BOXES,
    COUNTS,
    HEIGHT,
    NAMES,
    WIDTH,
    annotations_of,
    content_of,
    edit,
    image_of,
    name_of,
    write_image,
    write_tree,
)

from benchmark.data import image_sizes
from benchmark.data.faults import DataError
from benchmark.experiment.config import DatasetInfo
from benchmark.experiment.settings import Dataset
from benchmark.experiment.workspace import HERE
from benchmark.prepare import prepare
from pgd.evaluation.coco import coco_box_metrics

OBJECTS = {split: len(BOXES) * count for split, count in COUNTS.items()}


@pytest.fixture
def tree(tmp_path, monkeypatch) -> Path:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return write_tree(tmp_path / "coco")


def asked(root: Path, **settings: object) -> Dataset:
    return Dataset("coco", root=str(root), **settings)


def without(*keys: str, split: str = "train") -> Change:
    return every(lambda entry: [entry.pop(key) for key in keys], split)


def of_images(change) -> Change:
    return lambda root: edit(annotations_of(root), lambda content: [change(i) for i in content["images"]])


def renumbered(content: dict) -> None:
    """Categories from 0 on, as many tools write them."""
    new = {category["id"]: number for number, category in enumerate(content["categories"])}
    for entry in content["categories"]:
        entry["id"] = new[entry["id"]]
    for entry in content["annotations"]:
        entry["category_id"] = new[entry["category_id"]]


def in_both(change) -> Change:
    return lambda root: [edit(annotations_of(root, split), change) for split in NAMES]


def with_mark(root: Path) -> None:
    path = annotations_of(root)
    path.write_text(path.read_text(), encoding="utf-8-sig")


def renamed(listed: str, stored: str) -> Change:
    def change(root: Path) -> None:
        (image_of(root).parent / stored).parent.mkdir(exist_ok=True)
        image_of(root).rename(image_of(root).parent / stored)
        one("file_name", listed, "images", 0)(root)

    return change


def linked_inside(root: Path) -> None:
    """Links may lead to anything of the tree."""
    (root / "blobs").mkdir()
    image_of(root).rename(root / "blobs" / "1")
    image_of(root).symlink_to(root / "blobs" / "1")


def linked_as_a_whole(root: Path) -> None:
    folder = root / NAMES["train"]
    folder.rename(root.parent / "elsewhere")
    folder.symlink_to(root.parent / "elsewhere")


def linked_folder(root: Path) -> None:
    """Somebody has put the images of a camera on another disk."""
    (image_of(root).parent / "cam0").symlink_to(root.parent / "elsewhere")
    (root.parent / "elsewhere").mkdir()
    image_of(root).rename(root.parent / "elsewhere" / "a.png")
    one("file_name", "cam0/a.png", "images", 0)(root)


def linked_in_a_linked_folder(root: Path) -> None:
    """Its own links may lead to what it holds."""
    linked_folder(root)
    (root.parent / "elsewhere" / "a.png").rename(root.parent / "elsewhere" / "blob")
    (root.parent / "elsewhere" / "a.png").symlink_to("blob")


def linked_root(root: Path) -> None:
    """As many have it: data/coco -> /mnt/coco."""
    root.rename(root.parent / "disk")
    root.symlink_to(root.parent / "disk")


NFC, NFD = (unicodedata.normalize(form, "café 1.png") for form in ("NFC", "NFD"))
#: what is unusual; what is said of it, or None where the file is used as it is
MENDED: dict[str, tuple[Change, str | None]] = {
    "no area": (without("area"), "12 areas (from the boxes)"),
    "null area": (one("area", None), "1 areas (from the boxes)"),
    "area 0": (every(lambda entry: entry.update(area=0)), "12 areas (from the boxes)"),
    "no iscrowd": (without("iscrowd"), "12 iscrowd (0)"),
    "null iscrowd": (one("iscrowd", None), "1 iscrowd (0)"),
    "iscrowd true": (one("iscrowd", True, entry=5), None),
    "no ids": (without("id"), "12 ids of annotations (numbered anew)"),
    "double ids": (every(lambda entry: entry.update(id=1)), "12 ids of annotations (numbered anew)"),
    "text ids": (every(lambda entry: entry.update(id=str(entry["id"]))), "12 ids of annotations (numbered anew)"),
    "float ids": (every(lambda entry: entry.update(id=entry["id"] + 0.5)), "12 ids of annotations (numbered anew)"),
    "a negative id": (one("id", -5), "12 ids of annotations (numbered anew)"),
    "a huge id": (one("id", 2**70), "12 ids of annotations (numbered anew)"),
    "id 0": (one("id", 0), None),
    "bare": (
        without("area", "iscrowd", "id"),
        "12 areas (from the boxes), 12 iscrowd (0), 12 ids of annotations (numbered anew)",
    ),
    "no sizes": (of_images(lambda i: [i.pop(key) for key in ("width", "height")]), "4 image sizes (from the files)"),
    "text sizes": (of_images(lambda image: image.update(width="64")), "4 image sizes (from the files)"),
    "zero sizes": (of_images(lambda image: image.update(width=0, height=0)), "4 image sizes (from the files)"),
    "mark of the byte order": (with_mark, "1 mark of the byte order (removed)"),
    # as CVAT writes it; readers want text
    "date that is a number": (
        of_images(lambda image: image.update(date_captured=0)),
        "1 file with unusual fields that nobody reads (removed)",
    ),
    "texts for numbers": (
        whole(info={"year": "2023"}, licenses=[{"id": "1"}]),
        "1 file with unusual fields that nobody reads (removed)",
    ),
    "text for polygons": (
        one("segmentation", "none"),
        "1 file with unusual fields that nobody reads (removed)",
    ),
    "fields that are nobody's": (one("attributes", {"occluded": False}), None),
    "category id 0": (in_both(renumbered), None),
    "subfolder": (renamed("cam0/000001.png", "cam0/000001.png"), None),
    "ending in capitals": (renamed("A.PNG", "A.PNG"), None),
    "spaces": (renamed("a b é.png", "a b é.png"), None),
    "composed name, decomposed file": (renamed(NFC, NFD), "1 file names (in the disk's Unicode form)"),
    "decomposed name, composed file": (renamed(NFD, NFC), "1 file names (in the disk's Unicode form)"),
    "link inside of the root": (linked_inside, None),
    "folder of images that is a link": (linked_as_a_whole, None),
    "folder below it that is a link": (linked_folder, None),
    "link inside of a linked folder": (linked_in_a_linked_folder, None),
    "root that is a link": (linked_root, None),
}


def fed(info: DatasetInfo, split: str) -> int:
    """How many boxes mmdet would train on."""
    annotations, images = getattr(info, f"{split}_annotations"), getattr(info, f"{split}_images")
    meta = {"classes": info.classes}
    data = CocoDataset(ann_file=annotations, data_prefix={"img": images}, metainfo=meta, pipeline=[])
    listed = [data.get_data_info(i) for i in range(len(data))]
    assert all(Path(one["img_path"]).is_file() for one in listed)
    return sum(len(one["instances"]) for one in listed)


def perfect(info: DatasetInfo, split: str) -> float:
    """The AP of detections that are the annotated objects."""
    path = getattr(info, f"{split}_annotations")
    content = json.loads(Path(path).read_text())
    keys = ("image_id", "category_id", "bbox")
    found = [{**{k: a[k] for k in keys}, "score": 1.0} for a in content["annotations"] if not a["iscrowd"]]
    return coco_box_metrics(path, found)["AP"]


@pytest.mark.slow
@pytest.mark.parametrize("what", MENDED)
def test_nothing_is_lost(tree, capsys, what):
    change, said = MENDED[what]
    change(tree)
    info = prepare("coco", asked(tree))
    out, own = capsys.readouterr().out, HERE.dataset("coco").parent / "train.json"
    if said is None:
        assert info.train_annotations == str(annotations_of(tree))
        assert "computed" not in out
    else:
        assert info.train_annotations == str(own)
        assert f"{annotations_of(tree)}: computed {said}; written to {own}\n" in out
        record = json.loads(own.with_name("changes.json").read_text())
        assert record["train"]["left_out"] == record["val"] == {}
    assert "left out" not in out
    assert info.val_annotations == str(annotations_of(tree, "val"))
    assert fed(info, "train") == OBJECTS["train"]
    assert perfect(info, "train") == pytest.approx(100)
    # of the sound file
    content, sound = json.loads(Path(info.train_annotations).read_text(encoding="utf-8-sig")), content_of("train")
    assert [a["bbox"] for a in content["annotations"]] == [a["bbox"] for a in sound["annotations"]]
    assert [a["area"] for a in content["annotations"]] == [a["area"] for a in sound["annotations"]]
    assert {(i["width"], i["height"]) for i in content["images"]} == {(WIDTH, HEIGHT)}


def test_a_linked_folder_is_named(tree, capsys):
    linked_folder(tree)
    prepare("coco", asked(tree))
    told = f"1 folders of images are linked from elsewhere (first: cam0 -> {tree.parent / 'elsewhere'})"
    assert f"{tree / NAMES['train']}: {told}\n" in capsys.readouterr().out


def test_regions_that_mmdet_alone_ignores(tree, capsys):
    """``ignore: 1`` leaves a box out of mmdet's trainings, and pycocotools takes it for an object."""
    one("ignore", 1, entry=0)(tree)
    info = prepare("coco", asked(tree))
    assert "computed 1 ignore (taken for iscrowd)" in capsys.readouterr().out
    first = json.loads(Path(info.train_annotations).read_text())["annotations"][0]
    assert (first["iscrowd"], "ignore" in first) == (1, False)


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1, 2**40])
def test_one_class(tree, number):
    """Whatever its id is."""

    def change(content: dict) -> None:
        content["categories"] = [{"id": number, "name": "a"}]
        for entry in content["annotations"]:
            entry["category_id"] = number

    in_both(change)(tree)
    info = prepare("coco", asked(tree))
    assert info.classes == ["a"]
    for split in NAMES:
        assert fed(info, split) == OBJECTS[split]
        assert perfect(info, split) == pytest.approx(100)


@pytest.mark.slow
@pytest.mark.parametrize("width", [0, 0.99])
def test_broken_is_counted_alike_in_training_and_evaluation(tree, width):
    """What mmdet would pass over is no object that an evaluation misses, either."""
    for split in NAMES:
        edit(annotations_of(tree, split), lambda content: content["annotations"][4].update(bbox=[1, 1, width, 5]))
    info = prepare("coco", asked(tree, broken="skip"))
    for split in NAMES:
        assert fed(info, split) == OBJECTS[split] - 1
        assert perfect(info, split) == pytest.approx(100)


def test_what_is_worth_a_look_is_said(tree, capsys):
    write_image(image_of(tree, 2, "val"), (WIDTH, 31))
    edit(annotations_of(tree, "val"), lambda content: content["images"][2].update(height=31))
    one("file_name", name_of("train", 1), "images", 0)(tree)
    edit(annotations_of(tree), lambda c: c["categories"].append({"id": 8, "name": "c"}))
    edit(annotations_of(tree, "val"), lambda c: c["categories"].append({"id": 8, "name": "c"}))
    prepare("coco", asked(tree))
    out = capsys.readouterr().out
    assert "coco: 1 train image files are listed more than once (first: train1.png)" in out
    assert "coco: 1 classes have no train objects (first: c)" in out
    assert "coco: 1 val images are less than 32 pixels wide or high: configs at full scale find what is in" in out
    train = asked(tree, layout={"val": ("annotations/instances_train2017.json", "train2017")})
    prepare("coco", train)
    assert "coco: 3 val images are training images, too" in capsys.readouterr().out


def test_photographs_that_are_turned_as_annotated(tree, capsys):
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6
    write_image(image_of(tree).with_suffix(".jpg"), (HEIGHT, WIDTH), exif=exif)
    one("file_name", "train0.jpg", "images", 0)(tree)
    info = prepare("coco", asked(tree))
    assert info.train_annotations == str(annotations_of(tree))
    assert "1 photographs are turned by their EXIF entry when they are read (first: train0.jpg)" in (
        capsys.readouterr().out
    )


def test_layout_and_areas(tree):
    (tree / "labels").mkdir()
    for split, name in NAMES.items():
        annotations_of(tree, split).rename(tree / "labels" / f"{split}.json")
        (tree / name).rename(tree / f"{split} images")
    with pytest.raises(DataError, match=r"instances_train2017\.json: missing"):
        prepare("coco", asked(tree))
    layout = {split: (f"labels/{split}.json", f"{split} images") for split in NAMES}
    info = prepare("coco", asked(tree, layout=layout, areas=(150.0, 300.0)))
    assert info.val_annotations == str(tree / "labels" / "val.json")
    assert info.train_images == str(tree / "train images")
    assert info.areas == [150, 300]


def test_digest_is_of_annotations_and_images(tree, tmp_path):
    """Wherever they lie and whenever they were copied."""
    first = prepare("coco", asked(tree)).digest
    os.utime(image_of(tree), ns=(1, 1))
    tree.rename(tmp_path / "moved")
    tree = tmp_path / "moved"
    assert prepare("other", asked(tree)).digest == first
    digests = [first]
    write_image(image_of(tree).with_suffix(".jpg"))
    image_of(tree).with_suffix(".jpg").rename(image_of(tree))
    digests.append(prepare("coco", asked(tree)).digest)
    one("area", 201)(tree)
    digests.append(prepare("coco", asked(tree)).digest)
    assert len(set(digests)) == 3


def test_a_second_look_reads_no_image(tree, monkeypatch):
    read, header_of = [], image_sizes.header_of
    monkeypatch.setattr(image_sizes, "header_of", lambda path: read.append(path) or header_of(path))
    first = prepare("coco", asked(tree))
    assert len(read) == sum(COUNTS.values())
    assert prepare("coco", asked(tree)) == first
    assert len(read) == sum(COUNTS.values())
    assert not list(tree.rglob("*.sizes.json")), "nothing is written into the tree"


def test_limits_look_at_the_first_images_only(tree):
    image_of(tree, 3).unlink()
    info = prepare("coco", asked(tree, train_images=2))
    assert len(json.loads(Path(info.train_annotations).read_text())["images"]) == 2
