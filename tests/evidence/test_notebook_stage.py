"""The stage `notebooks`: a page with outputs, the notebook untouched, a failing cell an error, nothing to show none."""

from __future__ import annotations

import textwrap
from itertools import zip_longest
from pathlib import Path

import nbformat
import pytest
from nbconvert.preprocessors import CellExecutionError
from support.notebook_cells import shown_by_cell, source_of, sources_in

from benchmark.experiment.workspace import ROOT
from benchmark.notebook import NothingToShow
from benchmark.notebooks import NOTEBOOKS, execute, keep, page_of

NAMES = sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))
REMEDY = "run `python -m benchmark.notebooks --keep` after `dvc repro`"
#: those that end early without one
NEED_A_TEACHER = ("00_start", "04_masks_and_weights")
#: how sentences in the place of a missing part begin
LEADS = ("**No pictures**", "**Without the share of positions**")
#: bytes of a notebook with its figures
LARGEST = 1_000_000


def code_cells(path: Path) -> list[nbformat.NotebookNode]:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def notebook(path, *codes: str):
    content = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code) for code in codes])
    nbformat.write(content, path)
    return path


@pytest.mark.slow
def test_runs_on_the_results_that_it_is_given(tmp_path):
    path = notebook(tmp_path / "a.ipynb", "import os\nprint('look at', os.environ['PGD_RESULTS'])")
    before = path.read_text()
    page = page_of(execute(path, tmp_path / "results"))
    assert f"look at {tmp_path / 'results'}" in page
    assert path.read_text() == before


@pytest.mark.slow
@pytest.mark.parametrize("error", ["ValueError", "ReportError"])
def test_a_failing_cell_is_an_error(tmp_path, error):
    code = f"from benchmark.evidence.record import ReportError\nraise {error}('the reason')"
    with pytest.raises(CellExecutionError, match="the reason"):
        execute(notebook(tmp_path / "a.ipynb", code), tmp_path)


@pytest.mark.slow
def test_a_page_ends_where_there_is_nothing_to_show(tmp_path):
    stop = "from benchmark.notebook import open_dynamics\nopen_dynamics()"
    path = notebook(tmp_path / "a.ipynb", "print('be' + 'fore')", stop, "print('af' + 'ter')")
    page = page_of(execute(path, tmp_path))
    assert "before" in page
    assert f"Nothing to show: {tmp_path.parent}/params.yaml: no such file" in page
    assert "`dvc repro` trains the runs and measures this on the way." in page
    assert "Traceback" not in page
    assert "after" not in page[page.index("Nothing to show") :]


@pytest.mark.long
def test_kept_outputs_are_the_same_every_time(tmp_path):
    code = """
        %matplotlib inline
        import pandas as pd
        from matplotlib.figure import Figure
        from ipywidgets import IntSlider
        from benchmark.notebook import show
        figure = Figure()
        figure.subplots()
        show("a sentence", pd.DataFrame({"AP": [1.5]}), figure, IntSlider())
    """
    path = notebook(tmp_path / "a.ipynb", textwrap.dedent(code))
    texts = []
    for _ in range(2):
        keep(path, execute(path, tmp_path))
        texts.append(path.read_text())
    assert texts[0] == texts[1]
    shown = [set(output["data"]) for output in code_cells(path)[0].outputs]
    assert shown == [{"text/markdown"}, {"text/html"}, {"image/png"}, {"text/plain"}]


def test_a_notebook_without_anything_to_show_is_left_as_it_is(tmp_path):
    path = notebook(tmp_path / "a.ipynb", "1", "2")
    before = path.read_text()
    with pytest.raises(FileNotFoundError, match=r"^a\.ipynb has nothing to show and stays as it is"):
        keep(path, nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1")]))
    assert path.read_text() == before


@pytest.mark.parametrize("name", NAMES)
def test_notebooks_are_committed_as_they_look(name):
    path = NOTEBOOKS / f"{name}.ipynb"
    cells = code_cells(path)
    assert [cell.execution_count for cell in cells] == [*range(1, len(cells) + 1)], REMEDY
    assert {output.output_type for cell in cells for output in cell.outputs} == {"display_data"}, REMEDY
    assert path.stat().st_size < LARGEST
    assert str(ROOT) not in path.read_text()
    # what is missing is named from the repository's root, also where another checkout has run it
    assert "**: /" not in path.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_what_is_committed_is_what_the_results_give(name, monkeypatch):
    """Parts that are missing here, as weights are in a fresh clone, are passed over, and what comes after a teacher."""
    here = []
    try:
        for shown in shown_by_cell(monkeypatch, name, ROOT / "results"):
            here.append([source_of(item) for item in shown])
    except NothingToShow:
        assert name in NEED_A_TEACHER
    for cell, sources in zip_longest(code_cells(NOTEBOOKS / f"{name}.ipynb")[: len(here)], here):
        if not any(text.startswith(LEADS) for text in sources):
            assert sources_in(cell) == sources, REMEDY
