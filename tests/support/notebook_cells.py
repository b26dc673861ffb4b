"""The code of notebooks, run in the test's own process, and what the committed ones show."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from IPython.display import Markdown
from matplotlib.figure import Figure
from nbformat import NotebookNode

from benchmark import notebook
from benchmark.report import NOTEBOOKS


def shown_by(monkeypatch, name: str, results: Path) -> tuple[int, str]:
    """How many figures the cells of a notebook show of these results, and the text and cells of tables."""
    shown = [item for cell in shown_by_cell(monkeypatch, name, results) for item in cell]
    texts = [text_of(item) for item in shown if not isinstance(item, Figure)]
    return sum(isinstance(item, Figure) for item in shown), "\n".join(texts)


def shown_by_cell(monkeypatch, name: str, results: Path) -> Iterator[list[Any]]:
    """What each code cell of a notebook shows of these results, cell by cell."""
    shown: list[Any] = []
    monkeypatch.setattr(notebook, "display", lambda item, **options: shown.append(item))
    monkeypatch.setenv("PGD_RESULTS", str(results))
    cells = json.loads((NOTEBOOKS / f"{name}.ipynb").read_text())["cells"]
    names: dict = {}
    for cell in (cell for cell in cells if cell["cell_type"] == "code"):
        shown.clear()
        exec("".join(line for line in cell["source"] if not line.startswith("%")), names)
        yield list(shown)


def text_of(item) -> str:
    """What stands in a piece of Markdown, in a table, or for a widget."""
    if isinstance(item, dict):
        return item["text/plain"]
    return item.data if isinstance(item.data, str) else item.data.to_string()


def source_of(item) -> str:
    """What a notebook's file holds of a thing that was shown: Markdown, HTML of a table, a name for a figure."""
    match item:
        case Figure():
            return "figure"
        case dict():
            return item["text/plain"]
        case Markdown():
            return item.data
        case _:
            return item._repr_html_()


def sources_in(cell: NotebookNode) -> list[str]:
    """The same of the outputs that a cell of a notebook's file holds."""
    outputs = [output["data"] for output in cell.outputs]
    kinds = ("text/markdown", "text/html", "text/plain")
    return ["figure" if "image/png" in data else next(data[kind] for kind in kinds if kind in data) for data in outputs]
