"""The report on crowds, on both kinds of metric, with costs, and with a single seed: figures known by hand."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from support.report_tree import add_crowd, build, load, resample, run_report

from benchmark import report
from benchmark.evidence import records, stats, tables
from benchmark.evidence.intervals import RESAMPLES, bootstrap_file, scorer, with_bootstrap
from benchmark.evidence.published import PUBLISHED
from benchmark.evidence.records import COST_COLUMNS, ReportError, aggregate
from benchmark.figures import samples

CROWD_HEAD = "| Run | Method | AP | gain | gain 95% | outcome | MR ↓ | JI | MR change | MR change 95% |"


@pytest.fixture
def crowd(tmp_path: Path) -> Path:
    add_crowd(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> Path:
    """Results of one seed with both kinds of metric and costs, to be read only."""
    root = tmp_path_factory.mktemp("both")
    build(root, seeds=1)
    add_crowd(root, seeds=1)
    write_costs(root)
    resample(root)
    run_report(root)
    return root / "results"


def write_costs(root: Path) -> None:
    rows = [
        ("plain", "none", 0, 100.0, 1.0, 300.0, 0.0),
        ("inherit", "none", 0, 101.0, 1.01, 310.0, 10.0),
        ("pgd", "pgd", 12345, 150.0, 1.5, 420.0, 120.0),
        ("gone", "pgd", 1, 150.0, 1.5, 420.0, 120.0),
    ]
    pd.DataFrame(rows, columns=list(COST_COLUMNS)).to_csv(root / "results" / "cost.csv", index=False)


@pytest.mark.slow
def test_crowd_tables_hold_what_a_hand_computes(crowd):
    run_report(crowd)
    results = crowd / "results"
    lines = (results / "table.md").read_text().splitlines()
    assert lines[0] == CROWD_HEAD
    gain, change = "+4.0 ± 1.4 | [\u22128.7, +16.7] | not resolved", "\u22124.0 ± 1.4 | [\u221216.7, +8.7]"
    assert lines[4] == f"| crowd-pgd | PGD | 75.0 ± 2.8 | {gain} | 55.0 ± 2.8 | 65.5 ± 0.7 | {change} |"
    assert "lower is better" in lines[-1]
    assert "S, M, L" not in lines[-1]
    assert json.loads((results / "metrics.json").read_text())["crowd-pgd-1"] == {"AP": 77.0, "MR": 53.0, "JI": 66.0}
    assert {"AP", "MR", "JI"} < set(pd.read_csv(results / "seeds.csv"))
    assert "AP50" not in pd.read_csv(results / "seeds.csv")
    page = (results / "report.html").read_text()
    assert "42.8" in page
    assert "81c54d5" in page
    assert "AutoAssign" not in page
    assert "MR by seed" in page
    assert sorted(path.name for path in (results / "figures").iterdir()) == [
        "ap.png",
        "curves.png",
        "mr.png",
        "samples.png",
    ]


@pytest.mark.slow
def test_both_kinds_have_tables_of_their_own(both):
    text = (both / "table.md").read_text()
    assert text.count("## Results by ") == 2
    assert text.index("AP_S") < text.index("MR ↓")
    first, second = text.split("## Results by ")[1:]
    assert "crowd-pgd" not in first
    assert "| pgd |" not in second
    page = (both / "report.html").read_text()
    assert "AutoAssign" in page
    assert "81.4" in page
    assert page.count("not comparable with the mini sets)") == len(PUBLISHED)
    table = pd.read_csv(both / "table.csv").set_index("run")
    assert pd.isna(table.loc["pgd", "MR"])
    assert pd.isna(table.loc["crowd-pgd", "AP50"])
    assert "AP50" not in json.loads((both / "metrics.json").read_text())["crowd-pgd-0"]
    assert {path.stem for path in (both / "figures").iterdir()} == {
        "ap",
        "mr",
        "cost",
        "curves",
        "samples_coco",
        "samples_crowdhuman",
    }
    for path in (both / "figures").iterdir():
        with Image.open(path) as image:
            assert 600 <= image.width <= 2000
            assert 250 <= image.height <= 2500


@pytest.mark.slow
def test_one_seed_has_an_interval_over_images(both):
    table = pd.read_csv(both / "table.csv").set_index("run")
    assert table["interval"].dropna().to_dict() == {"pgd": "images", "crowd-pgd": "images"}
    # the made-up detections of all runs on fish are the same
    assert table.loc["pgd", ["gain_low", "gain_high"]].tolist() == [0, 0]
    # PGD finds two persons an image, the others one, and the first image has a third one. All are found before any
    # false alarm, so that AP is (found - 1) / persons
    persons = 6 + stats.draw_images(3, RESAMPLES)[:, 0]
    expected = np.quantile(300 / persons, (0.025, 0.975))
    assert table.loc["crowd-pgd", ["gain_low", "gain_high"]].tolist() == pytest.approx(expected.tolist(), abs=1e-4)
    # without false alarms every point of MR reads the share of those not found
    assert table.loc["crowd-pgd", ["MR_change_low", "MR_change_high"]].max() < 0
    assert "paired bootstrap" in (both / "table.md").read_text()
    assert "t-interval" not in (both / "table.md").read_text()


@pytest.mark.slow
def test_the_notebook_takes_over_the_intervals_of_the_report(both):
    found = aggregate(records.load_records(both, both.parent / "params.yaml"))
    table = records.with_intervals(found, both).set_index("run")
    written = pd.read_csv(both / "table.csv").set_index("run")
    names = ["gain_low", "gain_high", "MR_change_low"]
    assert np.allclose(table[names].astype(float), written[names], equal_nan=True)
    assert table.loc["crowd-pgd", "interval"] == "images"
    found.loc[found["run"] == "crowd-pgd", "gain"] += 1
    assert pd.isna(records.with_intervals(found, both).set_index("run").loc["crowd-pgd", "gain_low"])
    assert records.with_intervals(found, both / "nowhere") is found


def test_without_resamples_seeds_alone_count(crowd):
    found, results = aggregate(load(crowd)), crowd / "results"
    table = with_bootstrap(load(crowd), found, results).set_index("run")
    assert table.loc["crowd-pgd", "interval"] == "seeds"
    assert table.loc["crowd-pgd", "gain_low"] == found.set_index("run").loc["crowd-pgd", "gain_low"]
    assert table["gain_p"].isna().all()


@pytest.mark.slow
def test_several_seeds_and_images_have_an_interval_together(crowd):
    resample(crowd)
    table = with_bootstrap(load(crowd), aggregate(load(crowd)), crowd / "results").set_index("run")
    assert table["interval"].dropna().to_dict() == {"crowd-pgd": "both"}
    # the seeds' detections are the same, so that images alone count; PGD is better on every resample
    persons = 6 + stats.draw_images(3, RESAMPLES)[:, 0]
    expected = np.quantile(300 / persons, (0.025, 0.975))
    assert table.loc["crowd-pgd", ["gain_low", "gain_high"]].tolist() == pytest.approx(expected.tolist(), abs=1e-4)
    assert table.loc["crowd-pgd", "gain_p"] == pytest.approx(1 / RESAMPLES)
    assert table.loc["crowd-pgd", "gain_chance"] == 1
    # no spread over seeds, and that of the images
    reach = 1.9600 + 0.8416
    assert table.loc["crowd-pgd", "gain_seen"] == pytest.approx(reach * (300 / persons).std(ddof=1), rel=1e-3)
    run_report(crowd)
    lines = (crowd / "results" / "table.md").read_text()
    assert "| p | better |" in lines
    assert re.search(r"A true gain of \d+\.\d would be told from none four times in five", lines)
    assert "<0.01" in lines
    assert "seeds and validation images" in lines


@pytest.mark.slow
def test_resamples_that_do_not_fit_are_named(crowd):
    resample(crowd)
    path = bootstrap_file(crowd / "results", "crowd-pgd-1")
    path.write_text("AP,MR\n1.0,2.0\n")
    with pytest.raises(ReportError, match="differ in their number of resamples"):
        with_bootstrap(load(crowd), aggregate(load(crowd)), crowd / "results")
    path.write_text("AR\n1.0\n")
    with pytest.raises(ReportError, match=r"crowd-pgd-1\.csv holds no resampled AP"):
        with_bootstrap(load(crowd), aggregate(load(crowd)), crowd / "results")


def test_costs(both, tmp_path):
    page = (both / "report.html").read_text()
    assert "12,345" in page
    assert "1.50" in page
    assert "+120" in page
    assert "gone" not in page
    table = aggregate(records.load_records(both, both.parent / "params.yaml"))
    costs = records.load_costs(both, table)
    assert costs["run"].tolist() == ["plain", "inherit", "pgd"]
    assert costs["gain"].dropna().tolist() == [3]
    assert len(records.load_costs(tmp_path, table)) == 0
    (tmp_path / "cost.csv").write_text("run,method\npgd,pgd\n")
    with pytest.raises(ReportError, match=r"cost\.csv is not what `python -m benchmark\.cost` writes"):
        records.load_costs(tmp_path, table)


def test_what_was_learned_before_has_a_column(both, tmp_path):
    table = aggregate(records.load_records(both, both.parent / "params.yaml"))
    costs = records.load_costs(both, table)
    assert "first_stage_s" not in costs, "no method has learned anything before"
    pd.read_csv(both / "cost.csv").assign(first_stage_s=[0, 0, 83.4, 1]).to_csv(tmp_path / "cost.csv", index=False)
    shown = tables.costs(records.load_costs(tmp_path, table)).set_index("Run")["first stage (s)"]
    assert shown.to_dict() == {"plain": "0", "inherit": "0", "pgd": "83"}
    assert "first stage (s)" not in tables.costs(costs)


def test_step_times_have_their_quartiles(both, tmp_path):
    table = aggregate(records.load_records(both, both.parent / "params.yaml"))
    spread = {"step_ratio_low": [0.97, 0.9, 1.444, 1], "step_ratio_high": [1.03, 1.1, 1.75, 1]}
    pd.read_csv(both / "cost.csv").assign(**spread).to_csv(tmp_path / "cost.csv", index=False)
    shown = tables.costs(records.load_costs(tmp_path, table)).set_index("Run")["step time / alone [quartiles]"]
    assert shown["pgd"] == "1.50 [1.44, 1.75]"
    # as measured before there were quartiles
    assert tables.costs(records.load_costs(both, table)).set_index("Run")["step time / alone"]["pgd"] == "1.50"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"metric": "crowdhuman"', '"metric": "voc"', "has the metric 'voc', not one of coco, crowdhuman"),
        ('"MR": 57.0', '"MRR": 57.0', "has no 'MR'"),
        ('"MR": 57.0', '"MR": null', "has no MR: it is None"),
        ('"JI": 65.0', '"JI": NaN', "has no JI: it is nan"),
    ],
)
def test_a_broken_crowd_record_is_named(crowd, old, new, words):
    path = crowd / "results" / "runs" / "crowd-pgd-0.json"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(ReportError) as error:
        load(crowd)
    assert str(error.value) == f"{path} {words}"


def test_broken_annotations_are_named(tmp_path):
    odgt = tmp_path / "annotation_val.odgt"
    odgt.write_text('{"ID": "a"}\n')
    with pytest.raises(ReportError, match=r"annotation_val\.odgt is no annotation file of CrowdHuman"):
        scorer(tmp_path / "val.json", odgt)


def test_records_of_a_kind_are_those_of_the_first_folder_that_has_any(crowd, tmp_path):
    results, unread = crowd / "results", tmp_path / "nowhere"
    folder, own = records.load_kind(results, "crowdhuman", otherwise=unread)
    assert folder == results
    assert own["metric"].unique().tolist() == ["crowdhuman"]
    with pytest.raises(ReportError, match="nowhere"):
        records.load_kind(results, "coco", otherwise=unread)
    with pytest.raises(ReportError, match="holds no run with the metric 'coco'"):
        records.load_kind(results, "coco", otherwise=results)


def test_crowd_samples(crowd):
    found = load(crowd)
    shown = samples.load_samples(crowd / "work", "crowd", samples.sample_runs(found))
    assert not shown.tagged, "one image only has three persons"
    assert len(shown.images) == 1, "one image only has three persons"
    assert [len(boxes) for boxes in (shown.truth[0], *(found[0] for found in shown.detections.values()))] == [
        4,
        1,
        1,
        2,
    ]
    assert sum(box.crowd for box in shown.truth[0]) == 1
    axes = samples.figure(shown).axes
    assert [ax.get_xlabel() for ax in axes] == ["3 objects"] + ["1 of 3 found, 0 false"] * 2 + ["2 of 3 found, 0 false"]
    assert not any(ax.texts for ax in axes)


def test_differences_by_seed(crowd):
    found = load(crowd)
    cells = tables.differences(found, aggregate(found), "MR")
    assert cells.values.tolist() == [["crowd-pgd", "crowd-plain", "\u22123.00", "\u22125.00"]]
    plain = found[found["method"] == "none"]
    assert tables.differences(plain, aggregate(plain)).empty


def test_published_gains_are_the_differences_up_to_rounding():
    for table in PUBLISHED[:2]:
        for row in table.rows:
            teacher, plain, distilled = row[1:4] if table.words == 1 else row[3:6]
            assert plain == "\u2013" or float(plain) < float(distilled)
            # FCOS's improved head is taught by the plain one, which is no better
            known = "\u2013" not in (teacher, plain) and "improved head" not in row[0]
            assert not known or float(teacher) > float(plain)
    coco, crowd = PUBLISHED[0].rows, PUBLISHED[2].rows
    assert all(float(row[4]) == pytest.approx(float(row[3]) - float(row[2]), abs=0.11) for row in coco)
    _, plain, distilled = ([float(cell) for cell in row[1:4]] for row in crowd)
    change = [f"{b - a:+.1f}".replace("-", "\u2212") for a, b in zip(plain, distilled, strict=True)]
    assert list(crowd[2][4:]) == change
    assert all(len(row) == len(table.columns) for table in PUBLISHED for row in table.rows)


def test_cells_of_intervals():
    assert tables.interval(-0.24, 1.5) == "[\u22120.2, +1.5]"
    assert tables.interval(math.nan, math.nan) == "\u2013"
    assert report.distinct(pd.Series(["b", "a", "b", None])) == "b, a, none"
