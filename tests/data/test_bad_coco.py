"""Bad COCO trees: each is refused by a line that says file, place and remedy, and nothing is touched or half written.

What may be left out is, by ``broken: skip``, and counted; what can be computed is, without loss (test_mended_coco.py).
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.bad_coco import BAD, every, one
from support.coco_tree import BOXES, NAMES, annotations_of, edit, write_tree

from benchmark.data.faults import DataError
from benchmark.experiment.config import DatasetInfo
from benchmark.experiment.settings import Dataset
from benchmark.experiment.workspace import HERE
from benchmark.prepare import prepare

SKIP = ", or leave these out by broken: skip"


@pytest.fixture
def tree(tmp_path, monkeypatch) -> Path:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return write_tree(tmp_path / "coco")


def asked(root: Path, **settings: object) -> Dataset:
    return Dataset("coco", root=str(root), **settings)


def state_of(root: Path) -> dict[str, tuple[int, int]]:
    return {str(p): (p.lstat().st_size, p.lstat().st_mtime_ns) for p in root.rglob("*")}


def error_of(root: Path, **settings: object) -> str:
    """The one line by which a tree is refused; nothing of it is changed, and nothing is left that a stage would use."""
    before = state_of(root)
    with pytest.raises(DataError) as caught:
        prepare("coco", asked(root, **settings))
    assert not HERE.dataset("coco").exists()
    assert state_of(root) == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_refused(tree, what):
    change, said, remedy, skippable = BAD[what]
    change(tree)
    line = error_of(tree)
    assert line.startswith(f"{annotations_of(tree)}: ")
    assert said in line
    assert remedy in line.partition(said)[2]
    assert line.endswith(SKIP) == skippable


@pytest.mark.parametrize("what", [what for what, row in BAD.items() if row[3]])
def test_bad_input_is_left_out(tree, capsys, what):
    """As if it were not there, and counted; what is sound stays as it is, in the file of training and evaluation."""
    change, said, _, _ = BAD[what]
    sound = json.loads(annotations_of(tree).read_text())
    change(tree)
    info = prepare("coco", asked(tree, broken="skip"))
    told = capsys.readouterr().out
    assert f"{annotations_of(tree)}: left out 1 " in told
    assert said in told
    kept, of_image = json.loads(Path(info.train_annotations).read_text()), "(image 10" in said
    gone = (lambda a: a["image_id"] == 10) if of_image else (lambda a: a["id"] == 5)
    expected = {
        **sound,
        "annotations": [a for a in sound["annotations"] if not gone(a)],
        "images": [i for i in sound["images"] if not (of_image and i["id"] == 10)],
    }
    assert kept == expected
    assert info.train_annotations == str(HERE.dataset("coco").parent / "train.json")
    assert info.val_annotations == str(annotations_of(tree, "val")), "nothing was wrong with it"
    record = json.loads((HERE.dataset("coco").parent / "changes.json").read_text())
    # the annotations of an image go with it
    expected = [1, 3] if of_image else [1]
    assert [*record["train"]["left_out"].values()] == expected
    assert record["val"] == {}
    # and from here into the record of every training
    assert DatasetInfo.load("coco").left_out == info.left_out == {"train": record["train"]["left_out"]}
    if of_image:
        assert f"{annotations_of(tree)}: 3 annotations went with the images that were left out" in told


@pytest.mark.parametrize("broken", ["refuse", "skip"])
@pytest.mark.parametrize("split", NAMES)
@pytest.mark.parametrize("what", ["nothing", "crowds", "crowds in the first images"])
def test_nothing_to_find(tree, split, what, broken):
    """No teacher is trained before its first validation finds out."""
    limits = {}
    if what == "nothing":
        edit(annotations_of(tree, split), lambda content: content.update(annotations=[]))
    else:
        every(lambda a: a.update(iscrowd=1) if what == "crowds" or a["image_id"] == 10 else None, split)(tree)
    if what == "crowds in the first images":
        limits = {f"{split}_images": 1}
    line = error_of(tree, broken=broken, **limits)
    assert {"nothing": "no object at all in ", "crowds": "regions to ignore (iscrowd) in "}[what.split()[0]] in line
    remedy = f"raise {split}_images, now 1" if limits else f"give {split} annotations with objects"
    assert line.endswith(f"{split} images; {remedy}")


@pytest.mark.parametrize("split", NAMES)
def test_a_split_without_images(tree, split):
    edit(annotations_of(tree, split), lambda content: content.update(images=[], annotations=[]))
    line = error_of(tree)
    assert line == f"{annotations_of(tree, split)}: the list 'images' is empty; is this a COCO instances file?"


def test_everything_wrong_at_once_is_one_line(tree):
    for what in ("negative box", "missing image"):
        BAD[what][0](tree)
    one("area", "x", entry=0)(tree)
    one("bbox", None, entry=1)(tree)
    for number in range(6, 11):
        one("bbox", [1, 2, 3], entry=number)(tree)
    line = error_of(tree)
    assert "1 areas that are no positive numbers (annotation 1: area 'x'), 6 boxes that are not four numbers (" in line
    assert "; ...), 1 boxes of negative size (annotation 5" in line, "three places of a kind"
    assert "1 missing images (image 10 (train0.png))" in line


def test_a_few_boxes_of_real_coco_are_no_reason_to_refuse(tree, capsys):
    """COCO's own training file has boxes without area."""
    many = [{"image_id": 10, "category_id": 3, "bbox": BOXES[0], "area": 200, "iscrowd": 0} for _ in range(1100)]
    many = [{**entry, "id": 100 + k} for k, entry in enumerate(many)]
    edit(annotations_of(tree), lambda content: content["annotations"].extend(many))
    one("bbox", [3, 3, 0, 0])(tree)
    info = prepare("coco", asked(tree))
    assert "left out 1 boxes without area (annotation 5: bbox [3, 3, 0, 0])" in capsys.readouterr().out
    assert len(json.loads(Path(info.train_annotations).read_text())["annotations"]) == 1111
