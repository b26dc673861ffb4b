"""Stage `notebooks`: run the notebooks on the results of this folder and keep pages of them.

``python -m benchmark.notebooks`` executes every notebook of the repository with ``PGD_RESULTS`` set to ``results/``
here and writes ``results/notebooks/<name>.html``, several at once where there are cores. A cell that fails ends the
stage with its own traceback; where a notebook has nothing to show, its page ends with the sentence that says so.

``--keep`` writes the outputs into the notebooks themselves, too, as they stand in git: what a reader on the web or in a
fresh clone sees. Two calls on the same results write the same files.
"""

from __future__ import annotations

if __name__ == "__main__":
    # help and usage errors come before the imports that take seconds
    from benchmark.experiment.cli import answer_early

    answer_early("notebooks")

import base64
import os
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import nbformat
from nbconvert import HTMLExporter
from nbconvert.preprocessors import CellExecutionError, ExecutePreprocessor
from nbformat import NotebookNode
from PIL import Image
from tqdm import tqdm

from benchmark.experiment.cli import command_parser, run_cli
from benchmark.experiment.workspace import HERE
from benchmark.notebook import NothingToShow
from benchmark.report import NOTEBOOKS

OUT = HERE.results / "notebooks"
#: seconds a cell may take
TIMEOUT = 600
#: at once at most: each takes up to a gigabyte
KERNELS = 4
#: of a kept figure: few have more, and it takes a third of the room then
COLOURS = 128
#: tag of cells whose code is part of the text
READ = "read"
#: what can be shown only while the notebook runs
LIVE = "application/vnd.jupyter.widget-view+json"


def until_error(cells: list[NotebookNode]) -> list[NotebookNode]:
    """The cells up to the one that ended with an error, which is its output."""
    failed = [any(output.output_type == "error" for output in cell.get("outputs", ())) for cell in cells]
    return cells[: failed.index(True) + 1]


def execute(notebook: Path, results: Path) -> NotebookNode:
    """The notebook with its outputs; only its beginning where there is nothing to show.

    Args:
        notebook: an ``.ipynb`` file, which stays as it is.
        results: the folder that it shall look at.

    Raises:
        CellExecutionError: a cell failed in another way; the message names it and holds its traceback.
    """
    content = nbformat.read(notebook, as_version=4)
    # kernels inherit it
    os.environ["PGD_RESULTS"] = str(results.resolve())
    runner = ExecutePreprocessor(
        timeout=TIMEOUT,
        kernel_name="python3",
        store_widget_state=False,
        record_timing=False,
        # its warning that it can be listened to, on the machine that it runs on
        extra_arguments=["--log-level=ERROR"],
    )
    try:
        runner.preprocess(content, {"metadata": {"path": str(notebook.parent)}})
    except CellExecutionError as error:
        # it was raised in the kernel: only its name has come here
        if error.ename != NothingToShow.__name__:
            raise
        # the rest speaks of figures that are not there
        content.cells = until_error(content.cells)
    return content


def page_of(content: NotebookNode) -> str:
    """One HTML page of the outputs and the text between them; of code what is tagged :data:`READ`."""
    for cell in content.cells:
        if READ not in cell.metadata.get("tags", ()):
            cell.metadata["transient"] = {"remove_source": cell.cell_type == "code"}
    return HTMLExporter(exclude_input_prompt=True, exclude_output_prompt=True).from_notebook_node(content)[0]


def keep(notebook: Path, content: NotebookNode) -> None:
    """Write the outputs of an executed notebook into its file.

    Raises:
        FileNotFoundError: it had nothing to show, and its cells would be lost.
    """
    kept = nbformat.read(notebook, as_version=4)
    if len(content.cells) < len(kept.cells):
        raise FileNotFoundError(
            f"{notebook.name} has nothing to show and stays as it is: `dvc repro` brings what it needs"
        )
    for cell, done in zip(kept.cells, content.cells, strict=True):
        if cell.cell_type == "code":
            cell.execution_count, cell.outputs = done.execution_count, done.outputs
            for output in cell.outputs:
                _lighten(output.get("data", {}))
    nbformat.write(kept, notebook)


def _lighten(data: NotebookNode) -> None:
    """Leave what shows without a kernel, figures in few colours."""
    data.pop(LIVE, None)
    if len(data) > 1:
        # nobody reads it, and it may have an address in memory
        data.pop("text/plain", None)
    if "image/png" in data:
        figure, light = Image.open(BytesIO(base64.b64decode(data["image/png"]))), BytesIO()
        figure.convert("RGB").quantize(COLOURS).save(light, "png", optimize=True)
        data["image/png"] = base64.b64encode(light.getvalue()).decode()


def main() -> None:
    args = command_parser("notebooks").parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    names = args.names or sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))

    def run(name: str) -> None:
        notebook = NOTEBOOKS / f"{name}.ipynb"
        content = execute(notebook, HERE.results)
        (OUT / f"{name}.html").write_text(page_of(content), encoding="utf-8")
        if args.keep:
            keep(notebook, content)

    # each has a kernel of its own, which does the work
    with ThreadPoolExecutor(min(KERNELS, os.cpu_count() or 1)) as pool:
        list(tqdm(pool.map(run, names), desc="notebooks", total=len(names)))


if __name__ == "__main__":
    run_cli(main, CellExecutionError, FileNotFoundError)
