"""What notebooks are made of: one sentence where there is nothing, the rest goes on without its optional parts."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from support.notebook_cells import shown_by
from support.report_tree import build

from benchmark import notebook
from benchmark.evidence.record import ReportError
from benchmark.experiment.workspace import ROOT
from benchmark.figures.dynamics import DISTANCES, GRADIENTS
from benchmark.notebook import NothingToShow
from benchmark.report import NOTEBOOKS

REMEDIES = {
    "00_start": r"`make teacher` brings the default",
    "01_coco_results": r"params\.yaml: no such file.* `dvc repro` in the repository trains them; set `PGD_RESULTS`",
    "02_crowdhuman_results": r"`cd experiments/crowd && dvc repro` trains them; set `PGD_RESULTS`",
    "03_key_regions": r"no results; run `python -m benchmark\.key_regions PAIR`",
    "04_masks_and_weights": r"`make teacher` brings the default",
    "05_distillation_dynamics": r"`dvc repro` trains the runs and measures this",
}


@pytest.fixture
def texts(monkeypatch) -> list[str]:
    """The Markdown that is displayed."""
    found: list[str] = []
    monkeypatch.setattr(notebook, "display", lambda item: found.append(item.data))
    return found


def test_every_notebook_has_a_remedy():
    assert {path.stem for path in NOTEBOOKS.glob("*.ipynb")} == set(REMEDIES)


@pytest.mark.parametrize("name", REMEDIES)
def test_a_notebook_without_anything_stops_and_says_what_helps(name, tmp_path, monkeypatch):
    with pytest.raises(NothingToShow, match=f"^Nothing to show: .*{REMEDIES[name]}"):
        shown_by(monkeypatch, name, tmp_path / "results")


def test_jupyter_shows_the_sentence_alone():
    assert NothingToShow("a sentence")._render_traceback_() == ["a sentence"]


@pytest.mark.parametrize(
    ("named", "folder"),
    [
        (None, ROOT / "here"),
        ("", ROOT / "here"),
        ("experiments/crowd/results", ROOT / "experiments/crowd/results"),
        ("/else/results", Path("/else/results")),
    ],
)
def test_the_folder_that_is_looked_at(named, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PGD_RESULTS", raising=False)
    if named is not None:
        monkeypatch.setenv("PGD_RESULTS", named)
    assert notebook.results_folder("here") == folder


def test_what_may_be_missing_becomes_a_sentence(texts):
    with notebook.optional("No curves", "Draw them."):
        raise ReportError("a.csv is missing")
    with notebook.optional("No costs"):
        raise ReportError("none")
    assert texts == ["**No curves**: a.csv is missing. Draw them.", "**No costs**: none."]


def test_a_fault_in_an_optional_part_is_a_fault(texts):
    with pytest.raises(KeyError), notebook.optional("No curves"):
        raise KeyError("step")
    assert texts == []


def test_several_pairs_have_headings(texts):
    points = pd.DataFrame({"pair": ["b", "a", "b"], "step": [1, 2, 3]})
    assert [own["step"].tolist() for own in notebook.each_pair(points)] == [[1, 3], [2]]
    assert texts == ["### b", "### a"]


def test_one_pair_has_no_heading(texts):
    assert len(list(notebook.each_pair(pd.DataFrame({"pair": ["b", "b"]})))) == 1
    assert texts == []


def test_dynamics_go_on_without_the_teacher(tmp_path, monkeypatch):
    build(tmp_path)
    shutil.rmtree(tmp_path / "work")
    for path in (tmp_path / "results" / "curves").glob("[!t]*.csv"):
        points = pd.DataFrame({"step": [0, 20], **{name: [2.0, 1.0] for name in DISTANCES}})
        if path.name.startswith("pgd"):
            points = points.assign(**dict(zip(GRADIENTS, (0.2, 0.3, 0.5), strict=True)))
        points.to_csv(path, index=False)
    count, text = shown_by(monkeypatch, "05_distillation_dynamics", tmp_path / "results")
    assert count == 3
    assert "**Without the share of positions**: " in text
    assert "`dvc repro` brings what it needs." in text
    assert "**pgd** puts 20% of its gradient on key positions." in text


@pytest.mark.slow
def test_key_regions(monkeypatch):
    count, text = shown_by(monkeypatch, "03_key_regions", ROOT / "experiments/regions/results")
    assert count == 5
    assert text.index("**nanodet-plus-m**: ") < text.index("**gfl**: "), "photographs open it"


@pytest.mark.slow
def test_the_start_of_a_trained_teacher(taught_world, monkeypatch):
    """Its last cell asserts that the loss by hand is the library's."""
    taught_world.settle()
    count, text = shown_by(monkeypatch, "00_start", taught_world.space.results.absolute())
    assert count == 1
    assert "**No gains yet**: " in text
    assert "Teacher of the pair **gfl**" in text
    assert "by the library **" in text


def test_the_start_shows_committed_gains_where_no_teacher_was_trained(tmp_path, monkeypatch):
    shutil.copytree(ROOT / "results", tmp_path / "results", ignore=shutil.ignore_patterns("notebooks"))
    shutil.copy(ROOT / "params.yaml", tmp_path)
    with pytest.raises(NothingToShow, match=r"no trained teacher .* `make teacher` brings the default"):
        shown_by(monkeypatch, "00_start", tmp_path / "results")


def test_the_start_lists_all_others():
    text = (NOTEBOOKS / "00_start.ipynb").read_text()
    assert [name for name in REMEDIES if f"[{name}]({name}.ipynb)" not in text] == ["00_start"]


@pytest.mark.slow
def test_masks_of_a_trained_teacher(taught_world, monkeypatch):
    taught_world.settle()
    count, text = shown_by(monkeypatch, "04_masks_and_weights", taught_world.space.results.absolute())
    assert count == 4
    assert "Teacher of the pair **gfl** (`GFLHead`), K = 30, ξ = 0.8 and 0.6." in text
    assert "for the sliders" in text
    assert "The runs of `experiments/regions/results`." in text
    assert "No teacher here is anchor-free" in text


@pytest.mark.slow
def test_import_loads_neither_torch_nor_mmdet():
    code = "import sys, benchmark.notebook; print([name for name in ('torch', 'mmdet') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
