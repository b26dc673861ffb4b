"""The stage `key_regions` from files to tables and figures, and what it says to bad input."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.hub import get_config
from mmengine.registry import init_default_scope
from support.detectors import CLASSES, QUIET, detector, model_config, stir
from support.worlds import World

from benchmark import key_regions
from benchmark import region_figures as plots_regions
from benchmark.data.faults import DataError
from benchmark.experiment.cli import run_cli
from benchmark.experiment.settings import SettingsError
from benchmark.experiment.workspace import ROOT
from benchmark.probe.subjects import configured_classes
from pgd.checkpoint import CheckpointError, export
from pgd.dense import UnsupportedHead
from pgd.evaluation.coco import CocoBoxes

pytestmark = [
    pytest.mark.slow,
    QUIET,
    pytest.mark.filterwarnings("ignore:pkg_resources is deprecated"),
    pytest.mark.filterwarnings("error:constrained_layout"),
]
NAMES = [f"class {k}" for k in range(CLASSES)]
FIGURES = ["AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large", "AR100"]
COLUMNS = ["name", "detector", "mode", "selection", "percent", "draw", *FIGURES]
#: images are enlarged by a half
CONFIG = """
model = {model!r}
model["data_preprocessor"] = dict(type="DetDataPreprocessor", mean=[120.0] * 3, std=[60.0] * 3, pad_size_divisor=32)
test_dataloader = dict(
    dataset=dict(
        type="CocoDataset",
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="Resize", scale=(192, 144), keep_ratio=True),
            dict(type="LoadAnnotations", with_bbox=True),
            dict(type="PackDetInputs"),
        ],
    )
)
"""


def predicted(config: Path, model, files: dict[int, Path]) -> dict[int, object]:
    """What mmdet's own test pipeline and ``predict`` find, image by image."""
    cfg = Config.fromfile(config)
    init_default_scope("mmdet")
    whole = MODELS.build(cfg.model).eval()
    whole.load_state_dict(model.state_dict())
    pipeline, found = Compose(cfg.test_dataloader.dataset.pipeline), {}
    with torch.no_grad():
        for image_id, path in files.items():
            data = pseudo_collate([pipeline({"img_path": str(path), "img_id": image_id, "instances": []})])
            found[image_id] = whole.test_step(data)[0]
    return found


def plain_figures(annotations: Path, names: list[str], found: dict[int, object]) -> dict:
    """Figures by the metric of the project."""
    metric = CocoBoxes(str(annotations))
    metric.dataset_meta = {"classes": names}
    metric.process({}, [sample.to_dict() for sample in found.values()])
    return metric.evaluate(len(found))


@pytest.fixture(scope="module")
def brought(tmp_path_factory) -> SimpleNamespace:
    """Someone's detector of random weights, on images whose objects are some of what it finds there, and a crowd."""
    root, rng = tmp_path_factory.mktemp("brought"), np.random.default_rng(0)
    (root / "images").mkdir()
    model = detector("gfl").eval()
    config = root / "theirs.py"
    config.write_text(CONFIG.format(model=model_config("gfl")))
    files = {}
    for image_id in (4, 2, 9):
        files[image_id] = root / "images" / f"{image_id}.png"
        noise = rng.integers(0, 255, (12, 16, 3), dtype=np.uint8)
        assert cv2.imwrite(str(files[image_id]), cv2.resize(noise, (128, 96), interpolation=cv2.INTER_CUBIC))
    found = predicted(config, model, files)
    annotations = []
    for image_id, sample in found.items():
        best = sample.pred_instances
        wide = (best.bboxes[:, 2:] - best.bboxes[:, :2]).amin(dim=1) > 12
        rows = zip(best.bboxes[wide][:5].tolist(), best.labels[wide][:5].tolist(), strict=True)
        for k, (box, label) in enumerate(rows):
            xywh = [box[0] + 1, box[1] + 1, box[2] - box[0], box[3] - box[1]]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": 10 + label,
                    "bbox": xywh,
                    "area": xywh[2] * xywh[3],
                    "iscrowd": int(k == 4),
                }
            )
    content = {
        "images": [{"id": i, "file_name": path.name, "height": 96, "width": 128} for i, path in files.items()],
        "categories": [{"id": 10 + k, "name": name} for k, name in enumerate(NAMES)],
        "annotations": annotations,
    }
    (root / "truth.json").write_text(json.dumps(content))
    export(model, root / "theirs.pth", NAMES)
    plain = plain_figures(root / "truth.json", NAMES, found)
    return SimpleNamespace(root=root, config=config, content=content, model=model, plain=plain)


def arguments(brought: SimpleNamespace, **changes: object) -> list[str]:
    files = {
        "config": brought.config,
        "checkpoint": brought.root / "theirs.pth",
        "annotations": brought.root / "truth.json",
        "images": brought.root / "images",
        **changes,
    }
    return [part for key, value in files.items() if value is not None for part in (f"--{key}", str(value))]


@pytest.fixture(scope="module")
def results(brought, tmp_path_factory) -> Path:
    """Of two detectors: the same under two names, one of them in batches and by one mode."""
    out = tmp_path_factory.mktemp("results")
    key_regions.main([*arguments(brought), "--out", str(out)])
    few = ["--percents", "100", "5", "--modes", "predictions", "--draws", "2", "--seed", "7"]
    key_regions.main([*arguments(brought, name="other"), *few, "--batch-size", "2", "--out", str(out)])
    return out


def test_table_of_brought_detector(brought, results):
    table = pd.read_csv(results / "theirs.csv", dtype={"draw": "Int64"})
    assert list(table)[:13] == COLUMNS
    drawn = ["AP", "AP_small", "AP_medium", "AP_large", "change", "behind_top"]
    bounds = [f"{name}_{bound}" for name in drawn for bound in ("low", "high")]
    assert list(table)[13:] == ["kept", "in_box", "kept_per_box", "below_one", "change", "behind_top", *bounds]
    assert len(table) == 2 * 6 * 8
    assert set(table["detector"]) == {"gfl"}
    assert set(table["name"]) == {"theirs"}
    assert brought.plain["AP"] > 20
    assert brought.plain["AP_large"] != brought.plain["AP"]
    everything = table[table["percent"] == 100]
    assert len(everything) == 12
    for name in FIGURES:
        assert everything[name].tolist() == pytest.approx([round(brought.plain[name], 4)] * 12, nan_ok=True)
    assert (everything["kept"] == everything["in_box"]).all()
    assert (everything["below_one"] == 0).all()
    for _, rows in table.groupby(["mode", "selection", table["draw"].fillna(-1)]):
        assert rows["percent"].is_monotonic_increasing
        assert rows["kept"].is_monotonic_increasing
        assert rows["below_one"].is_monotonic_decreasing
        assert rows["kept_per_box"].is_monotonic_increasing
    assert table["draw"].dropna().unique().tolist() == [0, 1, 2]
    random = table[(table["selection"] == "random") & (table["mode"] == "predictions") & (table["percent"] == 10)]
    assert random["AP"].nunique() > 1
    assert (table["AP_low"] <= table["AP_high"]).all()
    assert not everything[["change", "change_low", "change_high"]].any(axis=None)
    assert not table.loc[table["selection"] == "top", ["behind_top", "behind_top_low", "behind_top_high"]].any(
        axis=None
    )
    best = table[(table["mode"] == "predictions") & (table["percent"] == 5)].groupby("selection")["AP"].mean()
    assert best["top"] > best["random"] > best["worst"]


def test_positions_in_boxes_are_those_of_the_enlarged_image(brought, results):
    """Counted by loops: boxes in pixels of the input, crowds left out."""
    counts, union = [], 0
    for image in brought.content["images"]:
        own = [a for a in brought.content["annotations"] if a["image_id"] == image["id"] and not a["iscrowd"]]
        assert len(own) == 4
        inside = set()
        for a in own:
            x, y, w, h = (1.5 * v for v in a["bbox"])
            held = {
                (stride, i, j)
                for stride in (8, 16, 32, 64, 128)
                for i in range(-(-160 // stride))
                for j in range(-(-192 // stride))
                # padded from 144 to 160 rows
                if x < j * stride < x + w and y < i * stride < y + h
            }
            counts.append(len(held))
            inside |= held
        union += len(inside)
    table = pd.read_csv(results / "theirs.csv")
    assert set(table["in_box"]) == {union}
    rows = table[(table["mode"] == "predictions") & (table["selection"] == "top")].set_index("percent")
    counts = np.array([c for c in counts if c])
    for percent in (0.5, 10, 20, 100):
        kept = np.maximum(np.ceil(counts * percent / 100 - 1e-9), 1)
        assert rows["kept_per_box"][percent] == pytest.approx(kept.mean(), abs=1e-4)
        assert rows["below_one"][percent] == pytest.approx((counts * percent < 100).mean(), abs=1e-4)
    record = json.loads((results / "theirs.json").read_text())
    assert record["boxes"] + record["boxes_without_position"] == 12
    assert record["boxes"] == len(counts)


def test_levels_and_record(brought, results):
    levels = pd.read_csv(results / "theirs_levels.csv")
    assert list(levels) == ["name", "detector", "percent", "level", "stride", "kept", "share"]
    assert levels["stride"].tolist() == [8, 16, 32, 64, 128] * 8
    assert levels.groupby("percent")["share"].sum().tolist() == pytest.approx([1] * 8, abs=3e-4)
    table = pd.read_csv(results / "theirs.csv")
    kept = table[(table["mode"] == "predictions") & (table["selection"] == "top")].set_index("percent")["kept"]
    assert levels.groupby("percent")["kept"].sum().tolist() == kept.tolist()
    record = json.loads((results / "theirs.json").read_text())
    assert record["xi"] == 0.8
    assert record["seeds"] == [0, 1, 2]
    assert record["modes"] == ["predictions", "features"]
    assert record["images"] == 3
    assert record["head"] == "GFLHead"
    assert record["test_cfg"]["score_thr"] == 0.05
    assert {"torch", "cpu", "git_revision", "checkpoint_sha256", "seconds"} <= record.keys()


def test_options(results):
    table = pd.read_csv(results / "other.csv", dtype={"draw": "Int64"})
    assert set(table["mode"]) == {"predictions"}
    assert table["percent"].tolist() == [5, 100] * 5
    assert table["draw"].dropna().tolist() == [7, 7, 8, 8]
    first = pd.read_csv(results / "theirs.csv")
    first = first[(first["mode"] == "predictions") & first["percent"].isin([5, 100])]
    for selection in ("top", "central", "worst"):
        alone, batched = (t[t["selection"] == selection] for t in (first, table))
        assert alone["kept"].tolist() == batched["kept"].tolist()
        assert alone["AP"].tolist() == pytest.approx(batched["AP"].tolist(), abs=0.5)


def test_limit_takes_the_first_images_and_seeds_repeat(brought, tmp_path):
    few = ["--limit", "1", "--percents", "5", "--draws", "1", "--modes", "predictions"]
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        key_regions.main([*arguments(brought, name=name), *few, "--seed", str(seed), "--out", str(tmp_path)])
    a, b, c = (pd.read_csv(tmp_path / f"{name}.csv").drop(columns=["name", "draw"]) for name in "abc")
    pd.testing.assert_frame_equal(a, b)
    assert not a.equals(c)
    assert json.loads((tmp_path / "a.json").read_text())["images"] == 1


def test_pair(taught_world, capsys):
    """Of this experiment: the trained teacher and its validation set, the figures of `evaluate`."""
    taught_world.settle()
    key_regions.main(["gfl", "--percents", "1", "100", "--draws", "1"])
    table = pd.read_csv("results/key_regions/gfl.csv")
    metrics = json.loads(Path("work/teacher_metrics/gfl.json").read_text())
    everything = table[table["percent"] == 100]
    for name, value in metrics.items():
        assert everything[name].tolist() == pytest.approx([value] * len(everything), abs=6e-4, nan_ok=True)
    record = json.loads(Path("results/key_regions/gfl.json").read_text())
    assert record["config"] == "benchmark/configs/mini/gfl_r34.py"
    assert record["images"] == 6
    assert record["areas"] == taught_world.data.areas
    out = capsys.readouterr().out
    assert "predictions top" in out
    assert "100%" in out


def test_coco_sample(coco_sample, tmp_path, monkeypatch):
    """Real images and boxes: what all keep is the plain evaluation, and less is kept for less."""
    monkeypatch.setenv("PGD_COCO_SAMPLE", str(coco_sample))
    config = ROOT / "docs" / "examples" / "gfl_r18_coco_sample.py"
    model = dict(Config.fromfile(config).model)
    model.pop("data_preprocessor")
    model["backbone"]["init_cfg"] = None
    init_default_scope("mmdet")
    torch.manual_seed(0)
    detector = MODELS.build(model).eval()
    stir(detector, 0)
    export(detector, tmp_path / "random.pth")
    content = json.loads((coco_sample / "annotations" / "instances_val2017.json").read_text())
    chosen = sorted(content["images"], key=lambda image: image["id"])[:2]
    images = coco_sample / "val2017"
    found = predicted(config, detector, {image["id"]: images / image["file_name"] for image in chosen})
    # random weights find no real object: let some of what they find be objects, too
    for image_id, result in found.items():
        own, categories = result.pred_instances, [category["id"] for category in content["categories"]]
        for box, label in zip(own.bboxes[:3].tolist(), own.labels[:3].tolist(), strict=True):
            annotation = {"image_id": image_id, "category_id": categories[label], "iscrowd": 0}
            xywh = [box[0] + 2, box[1] + 2, box[2] - box[0], box[3] - box[1]]
            numbers = {"id": 10**9 + len(content["annotations"]), "bbox": xywh, "area": xywh[2] * xywh[3]}
            content["annotations"].append({**annotation, **numbers})
    (tmp_path / "truth.json").write_text(json.dumps(content))
    plain = plain_figures(tmp_path / "truth.json", [category["name"] for category in content["categories"]], found)
    assert plain["AP"] > 0
    files = {"config": config, "checkpoint": tmp_path / "random.pth", "images": images}
    args = [part for key, value in files.items() for part in (f"--{key}", str(value))]
    few = ["--limit", "2", "--percents", "5", "50", "100", "--draws", "0", "--out", str(tmp_path)]
    key_regions.main([*args, "--annotations", str(tmp_path / "truth.json"), *few])
    table = pd.read_csv(tmp_path / "gfl_r18_coco_sample.csv")
    everything = table[table["percent"] == 100]
    for name in FIGURES:
        assert everything[name].tolist() == pytest.approx([round(plain[name], 4)] * len(everything), nan_ok=True)
    for _, rows in table.groupby(["mode", "selection"]):
        assert rows["kept"].is_monotonic_increasing
        assert rows["kept"].nunique() == 3


# ------------------------------------------------------------------------------------------ bad input


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


# ------------------------------------------------------------------------------------------ figures


def test_figures(results, tmp_path):
    plots_regions.main(["--results", str(results), "--out", str(tmp_path)])
    first = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(first) == {"accuracy.png", "controls.png", "sizes.png", "levels.png"}
    plots_regions.main(["--results", str(results), "--out", str(tmp_path)])
    assert first == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


def test_lines_are_means_over_draws(results):
    table, levels = plots_regions.load(results)
    assert table["name"].unique().tolist() == ["other", "theirs"]
    figure = plots_regions.accuracy(table)
    axes = figure.axes[0]
    assert [a.get_title() for a in figure.axes] == ["Predictions dropped", "Features flattened"]
    rows = table[(table["mode"] == "predictions") & (table["selection"] == "random") & (table["name"] == "theirs")]
    expected = rows.groupby("percent")["AP"].mean()
    lines = [line for line in axes.lines if line.get_linestyle() == "--"]
    assert lines[1].get_ydata() == pytest.approx(expected.to_numpy())
    assert lines[1].get_xdata().tolist() == expected.index.tolist()
    low, high = axes.get_ylim()
    assert low == 0
    assert high >= table["AP"].max()
    bars = plots_regions.levels(levels).axes[1].patches
    own = levels[levels["name"] == "theirs"]
    heights = sorted(bar.get_height() for bar in bars)
    assert heights == pytest.approx(sorted(100 * own["share"]))


def test_no_results(tmp_path):
    with pytest.raises(plots_regions.FigureError, match=r"no results; run `python -m benchmark.key_regions PAIR`"):
        plots_regions.load(tmp_path)
    (tmp_path / "a.json").write_text('{"name": "a"}')
    with pytest.raises(plots_regions.FigureError, match=r"a.csv: missing"):
        plots_regions.load(tmp_path)


def test_help_needs_no_data(capsys):
    for module in (key_regions, plots_regions):
        with pytest.raises(SystemExit) as stop:
            module.main(["--help"])
        assert stop.value.code == 0
        assert "default: results/key_regions" in capsys.readouterr().out
