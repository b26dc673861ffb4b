"""CrowdHuman's annotations: read with every fault told by line, converted by the released rules, prepared for training."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmark import prepare as stage
from benchmark.config import DatasetInfo
from benchmark.data import crowdhuman
from benchmark.data.checks import DataError
from benchmark.data.crowdhuman import Faults, Published, Record, read_odgt, to_coco
from benchmark.prepare import prepare
from benchmark.settings import Dataset, SettingsError
from pgd.evaluation.odgt import read_odgt as read_truth

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
GOOD_BOX = {"tag": "person", "fbox": [0, 0, 4, 4]}


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
    assert not DatasetInfo.path("crowd").exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def read(path: Path) -> tuple[list[Record], Faults]:
    faults = Faults(path)
    return read_odgt(path, faults), faults


def content_of(path: str) -> dict:
    return json.loads(Path(path).read_text())


def test_records(tree):
    records, faults = read(tree / "annotation_train.odgt")
    assert not faults.found
    assert [(r.id, r.line, len(r.boxes)) for r in records] == [(FIRST, 1, 3), ("b,2", 2, 3), ("c,3", 3, 0)]
    full, beyond, mask = records[0].boxes
    assert (full.full, full.visible, full.head) == ((10, 5, 20, 30), (11, 6, 10, 12), (14, 5, 6, 7))
    assert not full.ignore, "the head's attributes say nothing about the person"
    assert beyond.visible is beyond.head is None and not beyond.ignore
    assert mask.tag == "mask" and mask.ignore
    assert [b.ignore for b in records[1].boxes] == [True, False, True]


def test_conversion_by_hand(tree):
    records, _ = read(tree / "annotation_train.odgt")
    assert to_coco(records, SIZES) == COCO


def test_prepared(tree, capsys):
    info = prepare("crowd", asked(tree))
    assert info == DatasetInfo.load("crowd")
    assert (info.classes, info.metric) == (["person"], "crowdhuman")
    assert content_of(info.train_annotations) == COCO
    assert {info.train_images, info.val_images} == {str(tree / "Images")}
    assert [i["file_name"] for i in content_of(info.val_annotations)["images"]] == ["v,1.jpg", "v,2.jpg"]
    assert Path(info.val_odgt).read_bytes() == (tree / "annotation_val.odgt").read_bytes()
    assert {Path(p).parent for p in (info.val_odgt, info.train_annotations)} == {DatasetInfo.path("crowd").parent}
    out = capsys.readouterr().out
    assert "crowd train: 3 images, 3 objects" in out and "left out" not in out


def test_limits(tree):
    """The first lines only; images behind them may be missing."""
    for name in ("c,3", "v,2"):
        (tree / "Images" / f"{name}.jpg").unlink()
    info = prepare("crowd", asked(tree, train_images=2, val_images=1))
    part = content_of(info.train_annotations)
    assert part == {**COCO, "images": COCO["images"][:2]}
    assert [json.loads(line)["ID"] for line in Path(info.val_odgt).read_text().splitlines()] == ["v,1"]
    assert len(content_of(info.val_annotations)["images"]) == 1


def test_digest_is_of_annotations_and_sizes(tree):
    first = prepare("crowd", asked(tree)).digest
    assert prepare("other", asked(tree)).digest == first
    changed = [first, prepare("crowd", asked(tree, train_images=2)).digest]
    for split in LINES:
        path = tree / f"annotation_{split}.odgt"
        path.write_text(path.read_text().replace('"fbox": [', '"hbox": [1, 1, 2, 2], "fbox": [', 1))
        changed.append(prepare("crowd", asked(tree)).digest)
    write_image(tree / "Images" / "v,2.jpg", (41, 30))
    changed.append(prepare("crowd", asked(tree)).digest)
    assert len(set(changed)) == 5


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"ID": "x", "gtboxes": [', "1 broken lines (line 4: no JSON, Expecting value"),
        ("\ufffd\x00", "1 broken lines (line 4: no JSON, "),
        ([1], "1 broken lines (line 4: no list 'gtboxes')"),
        ({"ID": "x"}, "1 broken lines (line 4: no list 'gtboxes')"),
        ({"ID": "x", "gtboxes": {}}, "1 broken lines (line 4: no list 'gtboxes')"),
        ("[" * 100_000, "1 broken lines (line 4: no JSON"),
        ({"gtboxes": []}, "1 records without an ID (line 4)"),
        ({"ID": "", "gtboxes": []}, "1 records without an ID (line 4: ID '')"),
        ({"ID": 7, "gtboxes": []}, "1 records without an ID (line 4: ID 7)"),
        ({"ID": "../x", "gtboxes": []}, "1 records without an ID (line 4: ID '../x')"),
        ({"ID": "b,2", "gtboxes": []}, "1 duplicate IDs (line 4: 'b,2' stands in line 2)"),
        ({"ID": "x", "gtboxes": [GOOD_BOX, 5]}, "1 broken boxes (line 4: box 2: no JSON object)"),
        ({"ID": "x", "gtboxes": [{"fbox": [0, 0, 1, 1]}]}, "1 broken boxes (line 4: box 1: no tag)"),
        ({"ID": "x", "gtboxes": [{"tag": "person"}]}, "1 broken boxes (line 4: box 1: fbox is not four numbers)"),
        ('{"ID": "x", "gtboxes": [{"tag": "mask", "fbox": [0, 0, NaN, 1]}]}', "box 1: fbox is not four numbers"),
        (f'{{"ID": "x", "gtboxes": [{{"tag": "a", "fbox": [0, 0, 1{"0" * 400}, 1]}}]}}', "fbox is not four numbers"),
        ({"ID": "x", "gtboxes": [{**GOOD_BOX, "fbox": ["1", 0, 1, 1]}]}, "box 1: fbox is not four numbers"),
        ({"ID": "x", "gtboxes": [{**GOOD_BOX, "fbox": [1, 2, 3]}]}, "box 1: fbox is not four numbers"),
        ({"ID": "x", "gtboxes": [{**GOOD_BOX, "extra": None}]}, "box 1: extra is no JSON object"),
        (
            {"ID": "x", "gtboxes": [{**GOOD_BOX, "fbox": [1, 2, 0, 5]}]},
            "1 boxes without area (line 4: box 1: fbox [1, 2, 0, 5])",
        ),
        ({"ID": "x", "gtboxes": [{**GOOD_BOX, "fbox": [1, 2, 5, -1]}]}, "1 boxes without area (line 4: box 1"),
        ({"ID": "gone", "gtboxes": []}, "1 missing images (line 4: "),
    ],
)
def test_faults_name_the_line(tree, line, said):
    path = tree / "annotation_train.odgt"
    write_lines(path, [*LINES["train"], line])
    if "gone" not in str(line):
        write_image(tree / "Images" / "x.jpg", (9, 9))
    message = error_of(asked(tree))
    assert message.startswith(f"{path}: ") and said in message
    assert message.endswith("; mend the data or fetch it again, or leave these out by broken: skip")


def test_bytes_that_are_no_text(tree):
    path = tree / "annotation_val.odgt"
    path.write_bytes(path.read_bytes() + b"\xff\xd8\xff\n")
    assert f"{path}: 1 broken lines (line 3: no JSON, 'utf-8' codec" in error_of(asked(tree))


@pytest.fixture
def faulty(tree) -> Path:
    """Good records between faulty ones of every kind, and boxes likewise."""
    lines = [
        "{cut",
        LINES["train"][0],
        "",
        {"gtboxes": []},
        {"ID": FIRST, "gtboxes": []},
        {"ID": "gone", "gtboxes": [GOOD_BOX]},
        {"ID": "empty", "gtboxes": [GOOD_BOX]},
        {
            "ID": "b,2",
            "other": 1,
            "gtboxes": [5, *LINES["train"][1]["gtboxes"], {**GOOD_BOX, "fbox": [3, 3, 0, 4], "extra": {"box_id": 8}}],
        },
        *["{cut"] * 3,
        LINES["train"][2],
    ]
    write_lines(tree / "annotation_train.odgt", lines)
    (tree / "Images" / "empty.jpg").write_bytes(b"")
    return tree


def test_refuse_tells_all_kinds_at_once(faulty):
    message = error_of(asked(faulty))
    images = faulty / "Images"
    assert "4 broken lines (line 1: no JSON, " in message and "; line 9: no JSON" in message
    assert "; line 10: no JSON" in message and "line 11" not in message and "; ...)" in message
    assert (
        ", 1 records without an ID (line 4), 1 duplicate IDs (line 5: '273271,1a0d6000b9e1f5b7' stands in line 2), "
        in (message)
    )
    assert (
        "1 broken boxes (line 8: box 1: no JSON object), 1 boxes without area (line 8: box 5: fbox [3, 3, 0, 4]), "
        in (message)
    )
    assert (
        f"1 missing images (line 6: {images}/gone.jpg), 1 unreadable images (line 7: {images}/empty.jpg); mend"
        in message
    )


def test_skip_leaves_out_what_is_broken(faulty, capsys):
    info = prepare("crowd", asked(faulty, broken="skip"))
    assert content_of(info.train_annotations) == COCO, "image ids follow what is left"
    told = capsys.readouterr().out
    assert told.startswith(f"{faulty / 'annotation_train.odgt'}: left out 4 broken lines (line 1: ")
    assert all(part in told for part in ("1 duplicate IDs", "1 missing images", "1 boxes without area (line 8: box 5"))
    kept = [
        json.loads(line) for line in (Path(info.val_odgt).parent / "annotation_train.odgt").read_text().splitlines()
    ]
    assert kept[0] == LINES["train"][0] and kept[2] == LINES["train"][2] and len(kept) == 3
    # A broken box would break the metric; one without area counts in the released AP, so it stays in the .odgt.
    assert kept[1]["other"] == 1 and kept[1]["gtboxes"][:-1] == LINES["train"][1]["gtboxes"]
    assert kept[1]["gtboxes"][-1]["fbox"] == [3, 3, 0, 4]


def test_what_skip_leaves_is_good_for_the_metric(faulty):
    (faulty / "annotation_train.odgt").rename(faulty / "annotation_val.odgt")
    write_lines(faulty / "annotation_train.odgt", LINES["train"])
    info = prepare("crowd", asked(faulty, broken="skip"))
    truths = read_truth(info.val_odgt)
    assert [f"{name}.jpg" for name in truths] == [i["file_name"] for i in content_of(info.val_annotations)["images"]]
    annotations = content_of(info.val_annotations)["annotations"]
    assert sum(t.persons for t in truths.values()) == sum(not a["iscrowd"] for a in annotations) + 1


def test_nothing_left(tree):
    write_lines(tree / "annotation_val.odgt", [])
    path = tree / "annotation_val.odgt"
    assert error_of(asked(tree)) == f"{path}: no image is left; is it an annotation file of CrowdHuman?"


def published(tree: Path, monkeypatch, **train) -> None:
    """Say that the tree's files are the published ones, but for what is given of train."""
    facts = {}
    for split, lines in LINES.items():
        digest = hashlib.sha256((tree / f"annotation_{split}.odgt").read_bytes()).hexdigest()
        facts[split] = Published(digest, len(lines), 3 if split == "train" else None)
    facts["train"] = replace(facts["train"], **train)
    monkeypatch.setattr(crowdhuman, "PUBLISHED", facts)


def test_verify(tree, monkeypatch):
    path = tree / "annotation_train.odgt"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert error_of(asked(tree, verify=True)) == (
        f"{path}: not the published file (its SHA-256 starts with {digest[:12]}, not 6bf241a79f19); fetch it again from "
        "crowdhuman.org, or use it as it is by verify: false"
    )
    for wrong, said in (
        ({"images": 15000}, "3 images, published are 15000"),
        ({"persons": 9}, "3 persons, published are 9"),
    ):
        published(tree, monkeypatch, **wrong)
        assert error_of(asked(tree, verify=True)) == f"{path}: {said}; use it as it is by verify: false"
    published(tree, monkeypatch)
    assert prepare("crowd", asked(tree, verify=True, train_images=1)).metric == "crowdhuman", "counts are of the whole"


def test_published_boxes_without_area_are_no_reason_to_refuse(tree, monkeypatch, capsys):
    path = tree / "annotation_train.odgt"
    path.write_text(path.read_text().replace("[20, 20, 2, 3]", "[20, 20, 2, 0]"))
    assert "1 boxes without area (line 2: box 3: fbox [20, 20, 2, 0])" in error_of(asked(tree))
    published(tree, monkeypatch)
    info = prepare("crowd", asked(tree, verify=True))
    assert content_of(info.train_annotations) == {**COCO, "annotations": COCO["annotations"][:5]}
    assert f"{path}: left out 1 boxes without area (line 2: box 3" in capsys.readouterr().out
    (tree / "Images" / "c,3.jpg").unlink()
    DatasetInfo.path("crowd").unlink()
    assert "1 missing images" in error_of(asked(tree, verify=True)), "anything else still is"


def test_published_facts():
    train, val = crowdhuman.PUBLISHED["train"], crowdhuman.PUBLISHED["val"]
    assert (train.images, val.images, train.persons, val.persons) == (15000, 4370, 339_565, None)
    assert train.sha256.startswith("6bf241a7") and train.sha256.endswith("284d9f77")
    assert val.sha256.startswith("be422c79") and val.sha256.endswith("a2993c04")
    assert len(train.sha256) == len(val.sha256) == 64


def test_missing_parts(tree, tmp_path):
    source = (
        "; CrowdHuman is never downloaded here: get it from crowdhuman.org (for non-commercial research and education "
        "only; its images must not be redistributed)"
    )
    assert error_of(asked(tmp_path / "gone")) == f"root: {tmp_path / 'gone'} is no folder{source}"
    (tree / "annotation_val.odgt").unlink()
    assert error_of(asked(tree)) == f"{tree}: no annotation_val.odgt{source}"
    (tree / "Images").rename(tree / "CrowdHuman_train")
    assert error_of(asked(tree)) == (
        f"{tree}: no folder with the train images (Images, images or CrowdHuman_train/Images), no annotation_val.odgt, "
        f"no folder with the val images (Images, images or CrowdHuman_val/Images){source}"
    )


def test_folders_of_images(tree):
    """Each split's images lie in the folder that holds most of them."""
    images = tree / "Images"
    for name in ("v,1", "v,2"):
        (tree / "CrowdHuman_val" / "Images").mkdir(parents=True, exist_ok=True)
        (images / f"{name}.jpg").rename(tree / "CrowdHuman_val" / "Images" / f"{name}.jpg")
    info = prepare("crowd", asked(tree))
    assert (info.train_images, info.val_images) == (str(images), str(tree / "CrowdHuman_val" / "Images"))
    (tree / "CrowdHuman_train").mkdir()
    images.rename(tree / "CrowdHuman_train" / "Images")
    assert prepare("crowd", asked(tree)).train_images == str(tree / "CrowdHuman_train" / "Images")
    (tree / "CrowdHuman_train" / "Images").rename(tree / "images")
    assert prepare("crowd", asked(tree)).train_images == str(tree / "images")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"kind": "crowdhuman"},
            "root: give the folder that holds annotation_train.odgt, annotation_val.odgt and Images/",
        ),
        ({"kind": "crowdhuman", "root": "x", "broken": "drop"}, "broken: 'drop' is not one of refuse, skip"),
        (
            {"kind": "minicrowd", "broken": "skip"},
            "broken: only sets of kind 'crowdhuman' have this setting, not 'minicrowd'",
        ),
        (
            {"kind": "coco", "root": "x", "verify": False},
            "verify: only sets of kind 'crowdhuman' have this setting, not 'coco'",
        ),
    ],
)
def test_settings(settings, said):
    with pytest.raises(SettingsError) as caught:
        Dataset(**settings)
    assert str(caught.value) == said


@pytest.fixture
def archive(tree, tmp_path, monkeypatch) -> Path:
    """A small archive in minicrowd's place."""
    path = tmp_path / "data" / "minicrowd.zip"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as out:
        for file in sorted(tree.rglob("*.*")):
            out.write(file, file.relative_to(tree))
    monkeypatch.setattr(stage, "CROWD_ARCHIVE", path)
    monkeypatch.setattr(stage, "CROWD_IMAGES", {"train": 3, "val": 2})
    return path


def test_minicrowd(archive, tree):
    info = prepare("mini", Dataset("minicrowd"))
    work = DatasetInfo.path("mini").parent
    assert (info.metric, info.val_odgt) == ("crowdhuman", str(work / "annotation_val.odgt"))
    assert content_of(info.train_annotations) == COCO
    assert info.val_images == str(work / "minicrowd" / "Images")
    assert (Path(info.val_images) / "v,1.jpg").read_bytes() == (tree / "Images" / "v,1.jpg").read_bytes()

    def files() -> dict[str, bytes]:
        return {str(p.relative_to(work)): p.read_bytes() for p in work.rglob("*") if p.is_file()}

    before = files()
    assert "minicrowd/annotation_val.sizes.json" not in before
    assert prepare("mini", Dataset("minicrowd")) == info and files() == before, "equal archives, equal folders"
    limited = prepare("mini", Dataset("minicrowd", train_images=1))
    assert len(content_of(limited.train_annotations)["images"]) == 1 and limited.digest != info.digest


def test_minicrowd_counts_and_archive(archive, monkeypatch):
    monkeypatch.setattr(stage, "CROWD_IMAGES", {"train": 3, "val": 300})
    with pytest.raises(DataError, match=r"minicrowd\.zip: 2 val images, expected 300$"):
        prepare("mini", Dataset("minicrowd", val_images=1))
    os.truncate(archive, archive.stat().st_size // 2)
    with pytest.raises(DataError, match=r"minicrowd\.zip: truncated or damaged"):
        prepare("mini", Dataset("minicrowd"))
    archive.unlink()
    with pytest.raises(DataError, match=r"minicrowd\.zip: missing; `dvc pull data`"):
        prepare("mini", Dataset("minicrowd"))
