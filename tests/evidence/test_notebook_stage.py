"""The stage `notebooks`: a page with outputs, the notebook itself untouched, a failing cell an error."""

from __future__ import annotations

import nbformat
import pytest
from nbconvert.preprocessors import CellExecutionError

from benchmark.notebooks import NOTEBOOKS, execute


def notebook(path, code: str):
    content = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
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
def test_a_failing_cell_is_an_error(tmp_path):
    with pytest.raises(CellExecutionError, match="the reason"):
        execute(notebook(tmp_path / "a.ipynb", "raise ValueError('the reason')"), tmp_path)


def test_notebooks_are_kept_without_outputs():
    for path in NOTEBOOKS.glob("*.ipynb"):
        for cell in nbformat.read(path, as_version=4).cells:
            assert not cell.get("outputs"), f"{path.name}: run nbstripout"
            assert cell.get("execution_count") is None, f"{path.name}: run nbstripout"
