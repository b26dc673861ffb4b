"""The stage `key_regions` from files to tables and figures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from support.brought import FIGURES, arguments, plain_figures, predicted
from support.detectors import QUIET, stir

from benchmark import key_regions
from benchmark import region_figures as plots_regions
from benchmark.experiment.workspace import ROOT
from pgd.checkpoint import export

pytestmark = [
    pytest.mark.slow,
    QUIET,
    pytest.mark.filterwarnings("ignore:pkg_resources is deprecated"),
    pytest.mark.filterwarnings("error:constrained_layout"),
]
COLUMNS = ["name", "detector", "mode", "selection", "percent", "draw", *FIGURES]


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
    lines = plots_regions.levels(levels).axes[1].lines
    shares = levels[levels["name"] == "theirs"].pivot(index="percent", columns="stride", values="share")
    assert [line.get_ydata().tolist() for line in lines] == [pytest.approx(100 * shares[s]) for s in sorted(shares)]


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
