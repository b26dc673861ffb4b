"""The code of notebooks, run in the test's own process."""

from __future__ import annotations

import json
from pathlib import Path

from matplotlib.figure import Figure

from benchmark import notebook
from benchmark.report import NOTEBOOKS


def shown_by(monkeypatch, name: str, results: Path) -> tuple[int, str]:
    """How many figures the cells of a notebook show of these results, and the text and cells of tables."""
    shown: list = []
    monkeypatch.setattr(notebook, "display", lambda item, **options: shown.append(item))
    monkeypatch.setenv("PGD_RESULTS", str(results))
    cells = json.loads((NOTEBOOKS / f"{name}.ipynb").read_text())["cells"]
    names: dict = {}
    for cell in (cell for cell in cells if cell["cell_type"] == "code"):
        exec("".join(line for line in cell["source"] if not line.startswith("%")), names)
    texts = [text_of(item) for item in shown if not isinstance(item, Figure)]
    return sum(isinstance(item, Figure) for item in shown), "\n".join(texts)


def text_of(item) -> str:
    """What stands in a piece of Markdown, in a table, or for a widget."""
    if isinstance(item, dict):
        return item["text/plain"]
    return item.data if isinstance(item.data, str) else item.data.to_string()
