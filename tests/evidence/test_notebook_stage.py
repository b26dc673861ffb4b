"""The stage `notebooks`: a page with outputs, the notebook untouched, a failing cell an error, nothing to show none."""

from __future__ import annotations

import nbformat
import pytest
from nbconvert.preprocessors import CellExecutionError

from benchmark.notebooks import NOTEBOOKS, execute


def notebook(path, *codes: str):
    content = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code) for code in codes])
    nbformat.write(content, path)
    return path


@pytest.mark.slow
def test_runs_on_the_results_that_it_is_given(tmp_path):
    path = notebook(tmp_path / "a.ipynb", "import os\nprint('look at', os.environ['PGD_RESULTS'])")
    before = path.read_text()
    page = execute(path, tmp_path / "results")
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
    page = execute(notebook(tmp_path / "a.ipynb", "print('be' + 'fore')", stop, "print('af' + 'ter')"), tmp_path)
    assert "before" in page
    assert f"Nothing to show: {tmp_path.parent}/params.yaml: no such file" in page
    assert "`dvc repro` trains the runs and measures this on the way." in page
    assert "Traceback" not in page
    assert "after" not in page[page.index("Nothing to show") :]


def test_notebooks_are_kept_without_outputs():
    for path in NOTEBOOKS.glob("*.ipynb"):
        for cell in nbformat.read(path, as_version=4).cells:
            assert not cell.get("outputs"), f"{path.name}: run nbstripout"
            assert cell.get("execution_count") is None, f"{path.name}: run nbstripout"
