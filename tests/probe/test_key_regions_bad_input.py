"""What the stage `key_regions` says to input that it cannot use, and what it mends by itself."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from mmengine.config import Config
from mmengine.hub import get_config
from support.brought import FIGURES, NAMES, arguments
from support.detectors import QUIET, detector
from support.worlds import World

from benchmark import key_regions
from benchmark.data.faults import DataError
from benchmark.experiment.cli import run_cli
from benchmark.experiment.settings import SettingsError
from benchmark.probe.subjects import configured_classes
from pgd.checkpoint import CheckpointError, export
from pgd.dense import UnsupportedHead

pytestmark = [
    pytest.mark.slow,
    QUIET,
    pytest.mark.filterwarnings("ignore:pkg_resources is deprecated"),
    pytest.mark.filterwarnings("error:constrained_layout"),
]


def complaint(args: list[str], capsys) -> str:
    """The one line on stderr with which the stage ends."""
    with pytest.raises(SystemExit) as stop:
        run_cli(lambda: key_regions.main(args), SettingsError, DataError, CheckpointError, UnsupportedHead)
    assert stop.value.code == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


def with_content(brought: SimpleNamespace, path: Path, **changes: object) -> Path:
    path.write_text(json.dumps({**brought.content, **changes}))
    return path


def test_classes_must_fit(brought, tmp_path, capsys):
    categories = [{**c, "name": f"cat {c['id']}"} for c in brought.content["categories"]]
    other = with_content(brought, tmp_path / "other.json", categories=categories)
    line = complaint(arguments(brought, annotations=other), capsys)
    assert "5 of 5 categories are no classes of the detector, first 'cat 1" in line
    assert "theirs.pth: class 0" in line
    export(brought.model, tmp_path / "four.pth", NAMES[:4])
    line = complaint(arguments(brought, checkpoint=tmp_path / "four.pth"), capsys)
    assert "four.pth: 4 classes, but the detector has 5" in line
    export(brought.model, tmp_path / "nameless.pth")
    fewer = [c for c in brought.content["categories"] if c["id"] < 14]
    used = [a for a in brought.content["annotations"] if a["category_id"] < 14]
    short = with_content(brought, tmp_path / "short.json", categories=fewer, annotations=used)
    line = complaint(arguments(brought, checkpoint=tmp_path / "nameless.pth", annotations=short), capsys)
    assert "short.json: 4 classes, but the detector has 5" in line


def test_categories_that_are_no_classes_are_left_out(brought, tmp_path, capsys):
    """As if the file did not have them."""
    few = ["--percents", "100", "--draws", "0", "--modes", "predictions"]
    foreign = [{**c, "name": "cat"} if c["id"] == 12 else c for c in brought.content["categories"]]
    fewer = [c for c in brought.content["categories"] if c["id"] != 12]
    used = [a for a in brought.content["annotations"] if a["category_id"] != 12]
    assert len(used) < len(brought.content["annotations"])
    found = []
    for name, changes in (("more", {"categories": foreign}), ("less", {"categories": fewer, "annotations": used})):
        file = with_content(brought, tmp_path / f"{name}.json", **changes)
        key_regions.main([*arguments(brought, annotations=file), *few, "--out", str(tmp_path / name)])
        found.append(pd.read_csv(tmp_path / name / "theirs.csv"))
    assert found[0].equals(found[1])
    assert "1 of 5 categories are no classes of the detector and are left out: cat" in capsys.readouterr().err


def test_class_names_of_the_config(brought, tmp_path):
    """Of weights without names: those of the test set, else of the kind of data set."""
    cfg = Config.fromfile(brought.config)
    cfg.test_dataloader.dataset.metainfo = {"classes": ("a", "b")}
    assert configured_classes(cfg) == ("a", "b")
    cfg.test_dataloader.dataset.metainfo = {"classes": "one"}
    assert configured_classes(cfg) == ("one",)
    shipped = get_config("mmdet::gfl/gfl_r50_fpn_1x_coco.py")
    assert configured_classes(shipped)[0] == "person"
    assert len(configured_classes(shipped)) == 80
    assert configured_classes(Config({})) == ()


@pytest.mark.parametrize("whose", ["checkpoint", "annotations"])
def test_order_of_categories(brought, results, tmp_path, capsys, whose):
    """Where checkpoint and file differ, somebody must say whose order the outputs have: figures are the plain ones."""
    few = ["--percents", "5", "100", "--draws", "0", "--modes", "predictions", "--out", str(tmp_path)]
    turned = {
        # another file than that of the training
        "checkpoint": {
            "annotations": with_content(
                brought, tmp_path / "turned.json", categories=brought.content["categories"][::-1]
            )
        },
        # trained on such a file by a config whose metainfo.classes are in another order: mmdet numbers by the file
        "annotations": {"checkpoint": tmp_path / "turned.pth"},
    }
    export(brought.model, tmp_path / "turned.pth", NAMES[::-1])
    args = [*arguments(brought, **turned[whose], name="theirs"), *few]
    line = complaint(args, capsys)
    assert "categories in another order than by" in line
    assert "by --classes checkpoint (class " in line
    key_regions.main([*args, "--classes", whose])
    assert "in another order than by" in capsys.readouterr().err
    own, first = (pd.read_csv(folder / "theirs.csv") for folder in (tmp_path, results))
    first = first[(first["mode"] == "predictions") & first["percent"].isin([5, 100]) & (first["selection"] != "random")]
    assert own["AP"].tolist() == first["AP"].tolist()
    assert first["AP"].nunique() > 1


def test_files_must_be_there(brought, tmp_path, capsys):
    none = tmp_path / "none"
    assert f"{none}: no such config; give a file" in complaint(arguments(brought, config=none), capsys)
    assert f"{none}: no such checkpoint" in complaint(arguments(brought, checkpoint=none), capsys)
    assert f"{none}: missing" in complaint(arguments(brought, annotations=none), capsys)
    assert f"{none}: no such folder" in complaint(arguments(brought, images=none), capsys)
    assert "no such config" in complaint(arguments(brought, config="mmdet::gfl/nothing.py"), capsys)
    shutil.copytree(brought.root / "images", none)
    (none / "9.png").unlink()
    line = complaint([*arguments(brought, images=none), "--modes", "predictions", "--percents", "5"], capsys)
    assert "9.png: no such image, though" in line


def test_files_must_be_of_their_kind(brought, tmp_path, capsys):
    line = complaint(arguments(brought, annotations=brought.config), capsys)
    assert "theirs.py: not valid JSON" in line
    empty = with_content(brought, tmp_path / "empty.json", images=[])
    assert "the list 'images' is empty" in complaint(arguments(brought, annotations=empty), capsys)
    for kind, key, said in (
        ("images", "file_name", "3 images without a file_name (entry 1 of 'images'"),
        ("annotations", "bbox", "boxes that are not four numbers (annotation 1: bbox None"),
        ("annotations", "category_id", "annotations of no category that is listed (annotation 1: category_id None"),
    ):
        entries = [{k: v for k, v in entry.items() if k != key} for entry in brought.content[kind]]
        lacking = with_content(brought, tmp_path / "lacking.json", **{kind: entries})
        line = complaint(arguments(brought, annotations=lacking), capsys)
        assert said in line
        assert "broken: skip" not in line, "that is a setting of `prepare`"
    twice = [{**c, "name": "one"} for c in brought.content["categories"]]
    double = with_content(brought, tmp_path / "double.json", categories=twice)
    assert "4 double names of categories (entry 2 of 'categories': 'one' was there before" in complaint(
        arguments(brought, annotations=double), capsys
    )
    for name, text in (("a.txt", "a"), ("broken.py", "model = dict(")):
        (tmp_path / name).write_text(text)
        assert "cannot be read as a config" in complaint(arguments(brought, config=tmp_path / name), capsys)
    strange = [{**brought.content["annotations"][0], "category_id": 99}]
    odd = with_content(brought, tmp_path / "odd.json", annotations=strange)
    assert "(annotation 1: category_id 99)" in complaint(arguments(brought, annotations=odd), capsys)
    sizes = [{**image, "width": 96, "height": 128} for image in brought.content["images"]]
    other = with_content(brought, tmp_path / "sizes.json", images=sizes)
    line = complaint([*arguments(brought, annotations=other), "--modes", "predictions"], capsys)
    assert "image 2 (2.png) is 96 x 128, but 128 x 96 when read" in line
    crowds = [{**one, "iscrowd": 1} for one in brought.content["annotations"]]
    none = with_content(brought, tmp_path / "crowds.json", annotations=crowds)
    assert "crowds.json: no object in it (but for crowds)" in complaint(arguments(brought, annotations=none), capsys)
    (tmp_path / "bare.py").write_text("a = 1")
    assert "no `model` in it" in complaint(arguments(brought, config=tmp_path / "bare.py"), capsys)
    (tmp_path / "dataless.py").write_text(brought.config.read_text().partition("test_dataloader")[0])
    line = complaint(arguments(brought, config=tmp_path / "dataless.py"), capsys)
    assert "no test_dataloader.dataset.pipeline" in line
    assert "--name: 'a/b' names files" in complaint(arguments(brought, name="a/b"), capsys)


def test_what_annotations_lack_is_computed(brought, results, tmp_path, capsys):
    """Bytes in front, no areas, no ids, crowds said by true: the figures of the whole file."""
    bare = [
        {**{k: v for k, v in one.items() if k not in ("area", "id")}, "iscrowd": bool(one["iscrowd"])}
        for one in brought.content["annotations"]
    ]
    file = with_content(brought, tmp_path / "bare.json", annotations=bare)
    file.write_text(file.read_text(), encoding="utf-8-sig")
    few = ["--percents", "5", "100", "--draws", "0", "--modes", "predictions", "--out", str(tmp_path)]
    key_regions.main([*arguments(brought, annotations=file), *few])
    assert "bare.json: computed 1 mark of the byte order (removed), 15 areas" in capsys.readouterr().err
    own, first = (pd.read_csv(folder / "theirs.csv") for folder in (tmp_path, results))
    first = first[(first["mode"] == "predictions") & first["percent"].isin([5, 100]) & (first["selection"] != "random")]
    for name in FIGURES:
        assert own[name].tolist() == pytest.approx(first[name].tolist(), nan_ok=True)


def test_checkpoint_and_detector_must_fit(brought, tmp_path, capsys):
    export(detector("atss"), tmp_path / "atss.pth", NAMES)
    line = complaint(arguments(brought, checkpoint=tmp_path / "atss.pth"), capsys)
    assert "atss.pth: does not fit the detector" in line
    assert "give a checkpoint of the same config" in line
    two_stage = "mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py"
    line = complaint(arguments(brought, config=two_stage), capsys)
    assert "no reader for FasterRCNN" in line
    assert "GFLHead" in line
    assert "RetinaHead" in line
    line = complaint(arguments(brought, config="mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py"), capsys)
    assert "RTMDetSepBNHead: its towers are one a level" in line


def test_one_subject_at_a_time(brought, capsys):
    for args in ([], ["gfl", *arguments(brought)], arguments(brought, images=None), ["gfl", "--config", "a.py"]):
        with pytest.raises(SystemExit) as stop:
            key_regions.main(args)
        assert stop.value.code == 2
        assert "give either a PAIR or all of --config" in capsys.readouterr().err
    for option, value in (("--percents", "0"), ("--percents", "101"), ("--xi", "2"), ("--limit", "0"), ("--seed", "a")):
        with pytest.raises(SystemExit) as stop:
            key_regions.main(["gfl", option, value])
        assert stop.value.code == 2
        assert option in capsys.readouterr().err


def test_unknown_pair_and_missing_teacher(tiny_world: World, capsys):
    tiny_world.settle()
    assert "no pair 'fcos'; there are: gfl" in complaint(["fcos"], capsys)
    assert "work/teachers/gfl/weights.pth: no such checkpoint" in complaint(["gfl"], capsys)
