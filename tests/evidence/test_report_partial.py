"""The report of an experiment of which not everything is there: told, left out, and never an error."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from support.report_tree import build, run_report

from benchmark import report
from benchmark.evidence.present import records_there
from benchmark.evidence.record import ReportError
from benchmark.evidence.records import aggregate, baseline_of

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    build(tmp_path)
    return tmp_path


def without(tree: Path, *names: str) -> str:
    """The page when these files are not there."""
    for name in names:
        (tree / name).unlink()
    run_report(tree)
    return (tree / "results" / "report.html").read_text()


@pytest.mark.slow
def test_what_is_not_there_is_told(tree, capsys):
    names = "results/runs/pgd-1.json", "results/curves/pgd-0.csv", "work/dataset/mini/dataset.json"
    page = without(tree, *names)
    told = (
        "Not run yet (1 of 7 trainings): pgd-1.",
        "Without a curve: pgd-0.",
        "No sample pictures: detections are not kept here.",
    )
    assert " ".join(told) in capsys.readouterr().out
    assert all(f'<p class="lacking">{text}</p>' in page for text in told)
    assert (tree / "results" / "table.md").read_text().endswith(f"\n{told[0]}\n")
    assert "S, M, L: small, medium and large objects." in page
    assert not (tree / "results" / "figures" / "samples.png").exists()
    table = pd.read_csv(tree / "results" / "table.csv").set_index("run")
    # of the shared seed alone
    assert table.loc["pgd", ["gain", "seeds"]].tolist() == [3, 1]
    assert table.loc["inherit", "seeds"] == 2
    assert "pgd" not in set(pd.read_csv(tree / "results" / "plots" / "curves.csv")["run"])


@pytest.mark.slow
def test_where_all_is_there_nothing_is_told(tree):
    assert 'class="lacking"' not in without(tree)


@pytest.mark.slow
def test_neither_teacher_nor_detections_nor_curves_are_needed(tree):
    shutil.rmtree(tree / "results" / "curves")
    page = without(tree, "results/runs/teacher-gfl.json", "work/evaluate/inherit-0/detections.json")
    assert "Not run yet (1 of 7 trainings): teacher-gfl." in page
    assert "Without a curve: plain-0, plain-1, inherit-0" in page
    assert "Of the distilled students" in page
    assert {path.name for path in (tree / "results" / "figures").iterdir()} == {"ap.png"}
    assert pd.read_csv(tree / "results" / "plots" / "curves.csv").empty


def test_a_run_without_any_record_is_named_once(tree):
    for path in (tree / "results" / "runs").glob("pgd-*.json"):
        path.unlink()
    records, told = records_there(tree / "results", tree / "params.yaml")
    assert told == "Not run yet (2 of 7 trainings): pgd."
    assert records["run"].unique().tolist() == ["teacher-gfl", "plain", "inherit"]


def change(tree: Path, name: str, **entries) -> None:
    path = tree / "results" / "runs" / name
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def test_records_of_other_settings_are_left_out_and_told(tree):
    change(tree, "pgd-1.json", config="benchmark/configs/mini/gfl_r18_half.py")
    records, told = records_there(tree / "results", tree / "params.yaml")
    assert "pgd-1" not in set(records["key"])
    assert told.startswith("Trained with other settings than params.yaml asks for now, and left out: pgd-1 (config ")
    for path in (tree / "results" / "runs").iterdir():
        change(tree, path.name, pair="another")
    with pytest.raises(ReportError, match=r"was trained with pair another, now gfl, as were all; `dvc repro` trains"):
        records_there(tree / "results", tree / "params.yaml")


def test_students_of_other_configs_are_compared_with_nobody(tree):
    records, _ = records_there(tree / "results", tree / "params.yaml")
    other = records.copy()
    other.loc[other["run"] == "pgd", "config"] = "another.py"
    assert baseline_of(records, "pgd") == "inherit"
    assert baseline_of(other, "pgd") is None
    other.loc[other["key"] == "pgd-1", "config"] = "a third.py"
    with pytest.raises(ReportError, match=r"the seeds of pgd differ in config: another\.py and a third\.py"):
        aggregate(other)


@pytest.mark.slow
def test_pictures_of_detections_that_are_gone_stay(tree):
    run_report(tree)
    picture = (tree / "results" / "figures" / "samples.png").read_bytes()
    page = without(tree, "work/evaluate/inherit-0/detections.json")
    assert "No sample pictures" not in page
    assert base64.b64encode(picture).decode() in page


def test_teachers_alone_make_a_page(tree, monkeypatch):
    for path in (tree / "results" / "runs").glob("*-[01].json"):
        path.unlink()
    assert "one teacher, 0 students" in without(tree)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["study", "real"])
def test_committed_records_alone_make_a_page(name, tmp_path, monkeypatch):
    """Of the photographs some pairs have no student and some nothing; nothing is prepared, no cost was measured."""
    monkeypatch.setattr(report, "figures", lambda *_: {})
    kept = REPOSITORY / "experiments" / name
    for folder in ("runs", "curves", "bootstrap"):
        shutil.copytree(kept / "results" / folder, tmp_path / "results" / folder)
    shutil.copy(kept / "params.yaml", tmp_path)
    page = without(tmp_path)
    assert len(pd.read_csv(tmp_path / "results" / "seeds.csv")) == len(list((kept / "results" / "runs").iterdir()))
    assert 'id="costs"' not in page
    assert "No sample pictures" in page
