"""Stage `prepare` on CrowdHuman trees and on minicrowd: what is there, what is missing, what is published."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from support.crowd_tree import COCO, LINES, asked, content_of, error_of, stand_aside, tree, write_image

from benchmark import prepare as stage
from benchmark.data import crowdhuman
from benchmark.data.checks import DataError
from benchmark.data.crowdhuman import Published
from benchmark.data.minicrowd import SPLITS, Split, generate
from benchmark.experiment.config import DatasetInfo
from benchmark.experiment.settings import Dataset, SettingsError, parse
from benchmark.experiment.workspace import HERE
from benchmark.prepare import prepare

__all__ = ["stand_aside", "tree"]  # fixtures


def test_prepared(tree, capsys):
    info = prepare("crowd", asked(tree))
    assert info == DatasetInfo.load("crowd")
    assert (info.classes, info.metric) == (["person"], "crowdhuman")
    assert content_of(info.train_annotations) == COCO
    assert {info.train_images, info.val_images} == {str(tree / "Images")}
    assert [i["file_name"] for i in content_of(info.val_annotations)["images"]] == ["v,1.jpg", "v,2.jpg"]
    assert Path(info.val_odgt).read_bytes() == (tree / "annotation_val.odgt").read_bytes()
    assert {Path(p).parent for p in (info.val_odgt, info.train_annotations)} == {HERE.dataset("crowd").parent}
    out = capsys.readouterr().out
    assert "crowd train: 3 images, 3 objects" in out
    assert "left out" not in out


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
        f"{path}: not the published file (its SHA-256 starts with {digest[:12]}, not 6bf241a79f19); "
        "fetch it again from crowdhuman.org, or use it as it is by verify: false"
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
    HERE.dataset("crowd").unlink()
    assert "1 missing images" in error_of(asked(tree, verify=True)), "anything else still is"


def test_published_facts():
    train, val = crowdhuman.PUBLISHED["train"], crowdhuman.PUBLISHED["val"]
    assert (train.images, val.images, train.persons, val.persons) == (15000, 4370, 339_565, None)
    assert train.sha256.startswith("6bf241a7")
    assert train.sha256.endswith("284d9f77")
    assert val.sha256.startswith("be422c79")
    assert val.sha256.endswith("a2993c04")
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
        ({"kind": "crowdhuman", "root": "x", "broken": "drop"}, "broken: 'drop' should be 'refuse' or 'skip'"),
        (
            {"kind": "minicrowd", "broken": "skip"},
            "broken: only sets of kind 'coco' and 'crowdhuman' have this setting, not 'minicrowd'",
        ),
        (
            {"kind": "coco", "root": "x", "verify": False},
            "verify: only sets of kind 'crowdhuman' have this setting, not 'coco'",
        ),
    ],
)
def test_settings(settings, said):
    with pytest.raises(SettingsError) as caught:
        parse({"datasets": {"crowd": settings}, "pairs": {}, "runs": {}})
    assert str(caught.value) == f"datasets.crowd.{said}"


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
    work = HERE.dataset("mini").parent
    assert (info.metric, info.val_odgt) == ("crowdhuman", str(work / "annotation_val.odgt"))
    assert content_of(info.train_annotations) == COCO
    assert info.val_images == str(work / "minicrowd" / "Images")
    assert (Path(info.val_images) / "v,1.jpg").read_bytes() == (tree / "Images" / "v,1.jpg").read_bytes()

    def files() -> dict[str, bytes]:
        return {str(p.relative_to(work)): p.read_bytes() for p in work.rglob("*") if p.is_file()}

    before = files()
    assert "minicrowd/annotation_val.sizes.json" not in before
    assert prepare("mini", Dataset("minicrowd")) == info, "equal archives, equal folders"
    assert files() == before, "equal archives, equal folders"
    limited = prepare("mini", Dataset("minicrowd", train_images=1))
    assert len(content_of(limited.train_annotations)["images"]) == 1
    assert limited.digest != info.digest


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


@pytest.mark.slow
def test_generated_minicrowd(tmp_path, monkeypatch, capsys):
    """The archive that the generator writes is whole, and nothing of it is left out."""
    assert {split.name: split.images for split in SPLITS} == stage.CROWD_IMAGES
    path, parts = tmp_path / "minicrowd.zip", (Split("train", 0, 2), Split("val", 1, 1))
    generate(path, workers=1, splits=parts)
    monkeypatch.setattr(stage, "CROWD_ARCHIVE", path)
    monkeypatch.setattr(stage, "CROWD_IMAGES", {"train": 2, "val": 1})
    info = prepare("mini", Dataset("minicrowd"))
    content = content_of(info.train_annotations)
    assert [(i["width"], i["height"]) for i in content["images"]] == [(256, 192)] * 2
    assert content["images"][1]["file_name"] == "minicrowd,train00001.jpg"
    listed = [json.loads(line)["gtboxes"] for line in (Path(info.val_odgt).with_name("annotation_train.odgt")).open()]
    assert [a["bbox"] for a in content["annotations"]] == [box["fbox"] for boxes in listed for box in boxes]
    assert "left out" not in capsys.readouterr().out
