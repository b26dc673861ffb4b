"""The report on a made-up results tree: figures known by hand, errors, and the page in a browser."""

from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from support.notebook_cells import shown_by
from support.report_tree import RUNS, add_crowd, build, load, run_report

from benchmark.evidence import tables
from benchmark.evidence.records import ReportError, aggregate
from benchmark.evidence.tables import markdown, number
from benchmark.figures import samples
from benchmark.figures.samples import Box, sample_runs, told
from benchmark.report import NOTEBOOKS


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    build(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def reported(tmp_path_factory) -> Path:
    """The results folder of a finished report, to be read only."""
    root = tmp_path_factory.mktemp("reported")
    build(root)
    run_report(root)
    return root / "results"


@pytest.mark.slow
def test_tables_hold_what_a_hand_computes(reported):
    table = pd.read_csv(reported / "table.csv").set_index("run")
    assert list(table.index) == ["teacher-gfl", *RUNS]
    assert table["AP"].to_dict() == {"teacher-gfl": 40, "plain": 21, "inherit": 24, "pgd": 28}
    assert table.loc["plain", "AP_sd"] == pytest.approx(math.sqrt(2), abs=1e-4)
    assert pd.isna(table.loc["teacher-gfl", "AP_sd"])
    assert table["gain"].notna().sum() == 1
    assert table.loc["pgd", "baseline"] == "inherit"
    assert table.loc["pgd", ["gain", "gain_sd"]].tolist() == pytest.approx([4, math.sqrt(2)], abs=1e-4)
    assert table["train_minutes"].to_dict() == {"teacher-gfl": 1.5, "plain": 2, "inherit": 2, "pgd": 2}
    lines = (reported / "table.md").read_text().splitlines()
    assert lines[0] == "| Run | Method | AP | gain | gain 95% | outcome | AP50 | AP75 | AP_S | AP_M | AP_L |"
    assert lines[4].startswith("| inherit | none, inherits head+neck | 24.0 ")
    cells = "28.0 ± 1.4 | +4.0 ± 1.4 | [\u22128.7, +16.7] | not resolved | 42.0 | 29.0 | \u2013 | 28.0 | 28.0 |"
    assert lines[5] == f"| pgd | PGD | {cells}"
    assert lines[-1].startswith("For all: pair gfl, 2 seeds a run, runs with a method inherit head+neck.")
    assert "up to 20², up to 45²" in lines[-1]


def test_machine_readable_results(reported):
    metrics = json.loads((reported / "metrics.json").read_text())
    assert len(metrics) == 7
    assert metrics["pgd-1"]["AP"] == 29
    assert "AP_small" not in metrics["pgd-1"]
    plot = pd.read_csv(reported / "plots" / "ap.csv")
    assert list(plot.columns) == ["run", "seed", "AP"]
    assert len(plot) == 7
    assert pd.read_csv(reported / "seeds.csv")["parameters"].unique().tolist() == [1234567]


@pytest.mark.slow
def test_the_same_records_give_the_same_bytes(reported, tree):
    run_report(tree)
    for name in ("report.html", "table.csv", "metrics.json", "figures/samples.png"):
        assert (reported / name).read_bytes() == (tree / "results" / name).read_bytes()


def test_figures_are_pictures_of_a_sane_size(reported):
    for name in ("ap", "curves", "samples"):
        with Image.open(reported / "figures" / f"{name}.png") as image:
            assert image.format == "PNG"
            assert 600 <= image.width <= 2000
            assert 300 <= image.height <= 2500
            assert np.asarray(image.convert("L")).std() > 5


def test_page_stands_alone(reported):
    page = (reported / "report.html").read_text()
    assert len(re.findall(r'<img src="data:image/png;base64,[A-Za-z0-9+/=]+" alt="[^"]+">', page)) == 3
    assert not re.search(r"(src|href|url)\W{1,3}(https?:)?//", page)
    assert "<fast>" not in page
    assert "a &lt;fast&gt; one" in page
    assert "method.topk</dt><dd>9<" in page
    assert "<dd>1234567<" in page
    assert "not comparable with the mini sets" in page
    assert "43.8" in page


def test_every_link_of_the_page_leads_somewhere(reported):
    page = (reported / "report.html").read_text()
    targets = set(re.findall(r'<a href="([^"]+)"', page))
    folded = {one for one in targets if one.startswith("#")}
    assert {f"#settings-{run}" for run in ("teacher-gfl", *RUNS)} < folded
    assert all(f'id="{one[1:]}"' in page for one in folded)
    files = {(reported / one).resolve() for one in targets - folded}
    assert not [path for path in files if not path.is_file()]
    assert {path.resolve() for path in NOTEBOOKS.glob("*.ipynb")} < files
    assert reported / "runs" / "pgd-1.json" in files
    assert reported / "curves" / "pgd-1.csv" in files
    assert reported / "table.csv" in files


def test_the_headline_names_pgd_and_its_gain():
    shared = {"pair": "gfl", "metric": "coco", "AP_sd": math.nan, "gain_low": math.nan, "baseline": "plain"}
    rows = [
        {"run": "t", "role": "teacher", "method": "none", "AP": 40.0, "gain": math.nan},
        {"run": "plain", "role": "student", "method": "none", "AP": 20.0, "gain": math.nan},
        {"run": "fgd", "role": "student", "method": "fgd", "AP": 25.0, "gain": 5.0},
        {"run": "own", "role": "student", "method": "pgd", "AP": 22.0, "gain": 2.0, "gain_low": 1.0, "gain_high": 3.0},
    ]
    shared["interval"] = "images"
    table = pd.DataFrame([shared | row for row in rows])
    assert tables.gains_sentence(table) == (
        "The teacher reaches 40.0 AP; of the distilled students 'fgd' is highest with 25.0 AP; without a method, "
        "on the same footing, 'plain' has 20.0 AP; PGD ('own') has 22.0 AP, a gain of +2.0 [+1.0, +3.0] (95% "
        "over images, one seed)."
    )
    table.loc[3, "AP"] = 30.0
    assert "'own' is highest with 30.0 AP" in tables.gains_sentence(table)
    assert "a gain of +2.0" in tables.gains_sentence(table), "also where it is the highest"
    assert tables.gains_sentence(table.drop(index=0)).startswith("Of the distilled students 'own'")


def test_tables_are_sorted_by_gain():
    rows = [
        ("b", "short", "student", "neck", 9.0, 10),
        ("b", "alone", "student", "none", 9.0, 20),
        ("b", "x", "student", "neck", 1.0, 20),
        ("a", "y", "student", "neck", None, 20),
        ("b", "z", "student", "neck", 2.0, 20),
        ("b", "plain", "student", "none", None, 20),
        ("b", "large", "teacher", "none", None, 15),
    ]
    table = pd.DataFrame(rows, columns=["pair", "run", "role", "inherit", "gain", "iterations"])
    assert tables.by_gain(table)["run"].tolist() == ["large", "plain", "z", "x", "alone", "short", "y"]


def test_a_student_that_overtakes_its_teacher_is_told():
    rows = [
        ("a", "teacher", "none", 30.0),
        ("a", "student", "none", 29.0),
        ("a", "student", "pgd", 31.0),
        ("b", "teacher", "none", 20.0),
        ("b", "student", "none", 20.04),
        ("b", "student", "none", 18.0),
    ]
    table = pd.DataFrame(rows, columns=["pair", "role", "method", "AP"])
    assert tables.overtaken(table) == "Students without a method overtake their teacher (b: 20.0 AP, teacher 20.0)."
    assert tables.overtaken(table[table["pair"] == "a"]) == ""


@pytest.mark.parametrize(
    ("low", "high", "interval", "word"),
    [
        (-0.1, 2.0, "both", "not resolved"),
        (0.1, 2.0, "both", "gain"),
        (0.1, 2.0, "images", "gain, one seed"),
        (-2.0, -1.0, "seeds", "loss"),
        (math.nan, math.nan, None, "no interval"),
    ],
)
def test_an_interval_has_a_word(low, high, interval, word):
    row = {"gain": 1.0, "gain_low": low, "gain_high": high, "interval": interval}
    assert tables.outcome(row) == word


def broken(capsys, root: Path) -> str:
    """The one line that the report stops with."""
    with pytest.raises(SystemExit) as stop:
        run_report(root)
    error = capsys.readouterr().err
    assert stop.value.code == 1
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    return error


def test_missing_settings_are_named(tree, capsys):
    (tree / "params.yaml").unlink()
    assert str(tree / "params.yaml") in broken(capsys, tree)
    assert not (tree / "results" / "table.csv").exists()


def test_without_any_record_there_is_no_page(tree, capsys):
    shutil.rmtree(tree / "results" / "runs")
    assert "results/runs/teacher-gfl.json is missing, as are all other records; `dvc repro`" in broken(capsys, tree)


@pytest.mark.parametrize("value", ["null", "NaN"])
def test_no_ap_is_an_error(tree, capsys, value):
    path = tree / "results" / "runs" / "plain-0.json"
    path.write_text(path.read_text().replace('"AP": 20.0', f'"AP": {value}'))
    assert str(path) in broken(capsys, tree)


def test_a_broken_or_foreign_record_is_named(tree, capsys):
    path = tree / "results" / "runs" / "plain-0.json"
    content = path.read_text()
    for text in (content[:50], content.replace('"lr"', '"rate"'), content.replace('"plain"', '"other"')):
        path.write_text(text)
        assert str(path) in broken(capsys, tree)


def test_no_gain_without_the_same_footing(tree):
    records = load(tree)
    records.loc[records["run"] == "pgd", "iterations"] = 800
    assert aggregate(records)["gain"].isna().all()
    records["iterations"], records["inherit"], records["backbone"] = 400, "none", "r18"  # the teacher's too
    with pytest.raises(ReportError, match=r"footing: plain, inherit$"):
        aggregate(records)


def test_interrupted_trainings_give_no_time(tree):
    records = load(tree)
    records.loc[(records["run"] == "pgd") & (records["seed"] == 0), "resumed"] = True
    assert aggregate(records).set_index("run")["train_minutes"][["plain", "pgd"]].tolist() == [2, 2.5]


def test_samples_show_teacher_student_and_pgd(tree):
    records = load(tree)
    assert list(sample_runs(records)) == ["teacher", "inheriting student", "PGD"]
    assert list(sample_runs(records).values()) == ["teacher-gfl", "inherit-0", "pgd-0"]
    assert sample_runs(records[records["method"] == "none"])["student alone"] == "plain-0"
    # another method is shown where it is ahead of PGD, and starts alike
    better = records[records["method"] == "pgd"].assign(method="fgd", method_title="FGD", run="fgd", AP=40.0)
    better["key"] = [f"fgd-{seed}" for seed in better["seed"]]
    assert sample_runs(pd.concat([records, better]))["FGD (highest AP)"] == "fgd-0"
    for change in ({"AP": 1.0}, {"inherit": "none"}):
        assert list(sample_runs(pd.concat([records, better.assign(**change)]))) == list(sample_runs(records)), change


def test_of_boxes_on_one_spot_the_best_is_named():
    first, close, far = (Box((x, 0, 10, 10), "a", 0.9 - x / 100) for x in (0, 2, 20))
    assert told([(first, "false"), (close, "false"), (far, "correct")]) == [first, far]
    assert told([(first, "truth"), (close, "truth")]) == [first, close], "objects are all named"


def test_detections_are_judged_like_coco_does():
    truth = [Box((0, 0, 10, 10), "a"), Box((50, 50, 40, 40), "a", crowd=True)]
    found = [
        Box((0, 0, 10, 9), "a", 0.6),  # second on its object
        Box((0, 0, 10, 10), "a", 0.9),
        Box((0, 0, 10, 10), "b", 0.8),
        Box((60, 60, 5, 5), "a", 0.5),  # one of the crowd
        Box((0, 0, 10, 10), "a", 0.39),
    ]
    judged = [(box.score, kind) for box, kind in samples.judge(found, truth, 0.4)]
    assert judged == [(0.9, "correct"), (0.8, "false"), (0.6, "false"), (0.5, "ignored")]
    # of what is not found nothing is told but that; the crowd is no object
    assert list(samples.judge(found[2:], truth, 0.4))[-1] == (truth[0], "missed")


def test_agreement_is_f1():
    truth = [Box((0, 0, 10, 10), "a"), Box((50, 50, 40, 40), "a")]
    found = [Box((0, 0, 10, 10), "a", 0.9), Box((20, 0, 10, 10), "a", 0.8), Box((20, 20, 5, 5), "a", 0.1)]
    # one right, one false, one missed
    assert samples.agreement(found, truth, 0.4) == pytest.approx(0.5)
    assert samples.agreement(found, truth, 0.85) == pytest.approx(2 / 3)
    assert samples.agreement([], [], 0.4) == 0


def test_each_detector_is_shown_from_its_best_score_on():
    truth = {1: [Box((0, 0, 10, 10), "a"), Box((50, 50, 40, 40), "a")], 2: [Box((0, 0, 10, 10), "a")]}
    found = {
        1: [Box((0, 0, 10, 10), "a", 0.309), Box((50, 50, 40, 40), "a", 0.219), Box((90, 0, 5, 5), "a", 0.2)],
        2: [Box((90, 0, 5, 5), "a", 0.25), Box((80, 0, 5, 5), "a", 0.15), Box((0, 0, 10, 10), "a", 0.01)],
    }
    # F1 after each box: 1/2, 2/5, 2/3, 4/7, 1/2; what is below all that is shown is missed
    assert samples.best_score(found, truth) == 0.21
    assert samples.best_score(dict.fromkeys(truth, ()), truth) == samples.MIN_SCORE


def test_the_pictures_are_typical_best_and_worst():
    plain = {1: 0.5, 2: 0.5, 3: 0.5, 4: 0.5, 5: 0.5}
    own = {1: 0.9, 2: 0.6, 3: 0.2, 4: 0.9, 5: 0.55}
    # gains 0.4, 0.1, -0.3, 0.4, 0.05: the median is that of 2; of equal gains the first counts
    assert samples.choose(own, plain) == {2: "typical", 1: "largest gain", 3: "largest loss"}
    assert samples.choose(plain, plain) == {1: "typical"}


def test_text_cells():
    assert [number(-1.25, 2), number(1.0, sign=True), number(math.nan)] == ["\u22121.25", "+1.0", "\u2013"]
    cells = markdown(pd.DataFrame({"Run": ["x|y"], "AP": ["1"]}))
    assert cells.splitlines()[1:] == ["| --- | ---: |", "| x\\|y | 1 |"]


@pytest.mark.slow
def test_notebooks(tree, monkeypatch):
    count, text = shown_by(monkeypatch, "01_coco_results", tree / "results")
    assert count == 3
    assert "+4.0" in text
    assert "No costs" in text
    assert "43.8" in text
    count, text = shown_by(monkeypatch, "02_crowdhuman_results", tree / "results")
    # an experiment without crowds: those that the repository keeps; the pictures need what its training leaves
    assert count >= 3
    assert "experiments/crowd/results" in text
    assert "pgd_released" in text
    add_crowd(tree)
    count, text = shown_by(monkeypatch, "02_crowdhuman_results", tree / "results")
    assert count == 4
    assert "+4.0" in text
    assert "42.8" in text
    assert "40.2" not in text
    assert "experiments/crowd" not in text
    count, text = shown_by(monkeypatch, "01_coco_results", tree / "results")
    assert count == 3
    assert "crowd-pgd" not in text
