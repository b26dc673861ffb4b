"""Stage `notebooks`: run the notebooks on the results of this folder and keep pages of them.

``python -m benchmark.notebooks`` executes every notebook of the repository with ``PGD_RESULTS`` set to ``results/``
here and writes ``results/notebooks/<name>.html``. A cell that fails ends the stage with its own traceback; where a
notebook has nothing to show, its page ends with the sentence that says so.
"""

from __future__ import annotations

if __name__ == "__main__":
    # help and usage errors come before the imports that take seconds
    from benchmark.experiment.cli import answer_early

    answer_early("notebooks")

import os
from pathlib import Path

import nbformat
from nbconvert import HTMLExporter
from nbconvert.preprocessors import CellExecutionError, ExecutePreprocessor
from nbformat import NotebookNode
from tqdm import tqdm

from benchmark.experiment.cli import command_parser, run_cli
from benchmark.experiment.workspace import HERE
from benchmark.notebook import NothingToShow
from benchmark.report import NOTEBOOKS

OUT = HERE.results / "notebooks"
#: seconds a cell may take
TIMEOUT = 600


def until_error(cells: list[NotebookNode]) -> list[NotebookNode]:
    """The cells up to the one that ended with an error, which is its output."""
    failed = [any(output.output_type == "error" for output in cell.get("outputs", ())) for cell in cells]
    return cells[: failed.index(True) + 1]


def execute(notebook: Path, results: Path) -> str:
    """The notebook with its outputs, as one HTML page; only its beginning where there is nothing to show.

    Args:
        notebook: an ``.ipynb`` file, which stays as it is.
        results: the folder that it shall look at.

    Raises:
        CellExecutionError: a cell failed in another way; the message names it and holds its traceback.
    """
    content = nbformat.read(notebook, as_version=4)
    # the kernel inherits it
    os.environ["PGD_RESULTS"] = str(results.resolve())
    runner = ExecutePreprocessor(timeout=TIMEOUT, kernel_name="python3", store_widget_state=False)
    try:
        runner.preprocess(content, {"metadata": {"path": str(notebook.parent)}})
    except CellExecutionError as error:
        # it was raised in the kernel: only its name has come here
        if error.ename != NothingToShow.__name__:
            raise
        # the rest speaks of figures that are not there
        content.cells = until_error(content.cells)
    page, _ = HTMLExporter(exclude_input=True, exclude_output_prompt=True).from_notebook_node(content)
    return page


def main() -> None:
    names = command_parser("notebooks").parse_args().names or sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))
    OUT.mkdir(parents=True, exist_ok=True)
    for name in tqdm(names, desc="notebooks"):
        (OUT / f"{name}.html").write_text(execute(NOTEBOOKS / f"{name}.ipynb", HERE.results), encoding="utf-8")


if __name__ == "__main__":
    run_cli(main, CellExecutionError, FileNotFoundError)
