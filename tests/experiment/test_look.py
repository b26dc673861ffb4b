"""Data outside of DVC's sight: the next `dvc repro` sees a change, and no training uses other data than planned."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from support.coco_tree import annotations_of, edit, image_of, write_image, write_tree

from benchmark.data.faults import DataError
from benchmark.data.manifest import changed_since, manifest, parts_of
from benchmark.experiment.settings import TEACHER, Dataset
from benchmark.experiment.stages import Stages
from benchmark.experiment.workspace import ROOT, Workspace
from benchmark.launch import launch
from benchmark.look import check_unchanged, look
from benchmark.train import planned_data


def state(root: Path) -> dict:
    return manifest(*parts_of(Dataset("coco", root=str(root))))


def corrected(root: Path) -> None:
    edit(annotations_of(root), lambda content: content["annotations"][0]["bbox"].__setitem__(0, 5))


def redrawn(root: Path) -> None:
    """Another picture of as many bytes."""
    data = bytearray(image_of(root).read_bytes())
    data[-30] ^= 1
    image_of(root).write_bytes(data)


CHANGES = {
    "annotations": corrected,
    "annotations of val": lambda root: edit(annotations_of(root, "val"), lambda content: content["images"].pop()),
    "an annotation file less": lambda root: annotations_of(root).unlink(),
    "an image less": lambda root: image_of(root, split="val").unlink(),
    "an image more": lambda root: write_image(image_of(root).parent / "cam0" / "9.png"),
    "another image": redrawn,
    "another name": lambda root: image_of(root).rename(image_of(root).with_name("x.png")),
    "all images gone": lambda root: image_of(root).parent.rename(root / "x"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changes_are_seen(tmp_path, change):
    root = write_tree(tmp_path / "coco")
    before = state(root)
    assert state(root) == before
    assert changed_since(before) == []
    CHANGES[change](root)
    assert state(root) != before
    (path,) = changed_since(before)
    assert Path(path).parent in (root, root / "annotations")


def test_links(tmp_path):
    """What they lead to counts; circles come to an end, and links to nothing do no harm."""
    root = write_tree(tmp_path / "coco")
    other = tmp_path / "other.png"
    image_of(root).rename(other)
    image_of(root).symlink_to(other)
    (root / "train2017" / "again").symlink_to(root / "train2017")
    (root / "train2017" / "nothing").symlink_to(tmp_path / "nothing")
    before = state(root)
    os.utime(other, ns=(1, 1))
    assert changed_since(before) == [str(root / "train2017")]


def test_kinds(tmp_path):
    for kind in ("minicoco", "midicoco", "minicrowd"):
        assert manifest(*parts_of(Dataset(kind))) == {"annotations": {}, "images": {}}
    files, folders = parts_of(Dataset("crowdhuman", root=str(tmp_path)))
    assert [path.name for path in files] == ["annotation_train.odgt", "annotation_val.odgt"]
    assert tmp_path / "Images" in folders
    assert tmp_path / "CrowdHuman_val" / "Images" in folders
    layout = {"val": ("b.json", "/elsewhere")}
    files, folders = parts_of(Dataset("coco", root=str(tmp_path), layout=layout))
    assert files == [tmp_path / "annotations" / "instances_train2017.json", tmp_path / "b.json"]
    assert folders == [tmp_path / "train2017", Path("/elsewhere")]


def test_a_training_refuses_data_that_changed(tiny_world, tmp_path):
    params = tiny_world.settle()
    job, space = tiny_world.job(params, TEACHER), tiny_world.space
    assert planned_data(job, space) == tiny_world.data
    name, root = tiny_world.data.name, write_tree(tmp_path / "coco")
    look(name, Dataset("coco", root=str(root)), space)
    assert planned_data(job, space) == tiny_world.data
    corrected(root)
    with pytest.raises(DataError) as caught:
        planned_data(job, space)
    assert str(caught.value) == (
        f"{annotations_of(root)}: changed since `dvc repro` looked at it; run `dvc repro` again"
    )
    look(name, Dataset("coco", root=str(root)), space)
    tiny_world.describe(replace(tiny_world.data, digest="another"))
    with pytest.raises(DataError, match=r"dataset\.json: not the data that .*teacher-gfl\.json names; run `dvc repro"):
        planned_data(job, space)


def test_data_that_nobody_looked_at(tmp_path):
    check_unchanged("coco", Workspace(tmp_path))


ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "DVC_NO_ANALYTICS": "1"}


@pytest.fixture
def experiment(tmp_path) -> Path:
    """The pipeline's first stages on a COCO tree, in a repository of their own."""
    folder = tmp_path / "experiment"
    folder.mkdir()
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        subprocess.run(command, cwd=folder, check=True, env=ENVIRONMENT)
    root = write_tree(tmp_path / "coco")
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    kept = {name: stages[name] for name in ("look", "prepare")}
    # what would train: it depends on the prepared data alone
    kept["behind"] = {"cmd": "date +%s.%N > trained", "deps": ["work/dataset"], "outs": ["trained"]}
    content = {"vars": [{"repo": "."}], "stages": kept}
    (folder / "dvc.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    settings = {
        "datasets": {"coco": {"root": str(root)}},
        "pairs": {"gfl": {"dataset": "coco", "teacher": {"config": "a"}, "student": {"config": "b"}}},
        "runs": {"student": {"pair": "gfl"}},
    }
    (folder / "params.yaml").write_text(yaml.safe_dump(settings))
    (folder / "work" / "closures").mkdir(parents=True)
    (folder / "data").mkdir()
    for name in kept:
        (folder / "work" / "closures" / f"{name}.json").write_text("{}")
    return folder


@pytest.mark.long
def test_dvc_sees_what_changed(experiment):
    """And runs nothing again where nothing did; the launcher takes a stage that always runs for done."""
    root = experiment.parent / "coco"

    def trained() -> tuple[str, str, bool]:
        command = [sys.executable, "-m", "dvc", "repro"]
        out = subprocess.run(command, cwd=experiment, env=ENVIRONMENT, check=True, capture_output=True, text=True)
        digest = json.loads((experiment / "work" / "dataset" / "coco" / "dataset.json").read_text())["digest"]
        return (experiment / "trained").read_text(), digest, "Running stage 'prepare@coco'" in out.stdout

    first = trained()
    again = trained()
    assert first[2]
    assert again == (*first[:2], False)
    os.utime(image_of(root), ns=(1, 1))
    assert trained() == first, "looked at anew, and found to be the same"
    digests = {first[1]}
    for change in (corrected, redrawn):
        before = trained()
        change(root)
        after = trained()
        assert after[0] != before[0]
        digests.add(after[1])
    assert len(digests) == 3
    stages = Stages(experiment)
    assert stages.changed("look@coco")
    assert not stages.changed("look@coco", ran=True)
    corrected(root)
    edit(annotations_of(root), lambda content: content["annotations"][0].update(area=9))
    launch(experiment, "local", 1, [], {})
    assert Stages(experiment).changed("behind") is False
