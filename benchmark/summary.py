"""Stage `summary`: the few figures that ``dvc metrics`` and ``dvc exp show`` have room for.

``python -m benchmark.summary`` reads ``results/table.csv`` and writes ``results/summary.json``, pair by pair: AP of the
teacher, of the student alone, of the one that inherits and of the run `pgd` (or `<pair>-pgd`), and what this gains over
its baseline. All figures of all runs and seeds are in ``results/metrics.json``, which `verdict` compares.
"""

from __future__ import annotations

if __name__ == "__main__":
    # help and usage errors come before the imports that take seconds
    from benchmark.experiment.cli import answer_early

    answer_early("summary")

import json
from pathlib import Path

import pandas as pd

from benchmark.evidence.record import TEACHER, ReportError
from benchmark.experiment.cli import command_parser, run_cli


def summary(table: pd.DataFrame) -> dict[str, dict[str, float]]:
    """By pair: what stands in the table of it, AP in percent, means over seeds; of several runs of a kind the first.

    Args:
        table: ``results/table.csv``: ``run, role, method, pair, inherit, AP, gain``.
    """
    alone = (table["role"] != TEACHER) & (table["method"] == "none")
    kinds = {
        "teacher": table["role"] == TEACHER,
        "student": alone & (table["inherit"] == "none"),
        "inherit": alone & (table["inherit"] != "none"),
        # others of its runs have another mask or weight
        "pgd": table["run"].str.fullmatch(r"(.*-)?pgd"),
    }
    found: dict[str, dict[str, float]] = {}
    for pair in table["pair"].unique():
        own = {name: table[(table["pair"] == pair) & rows] for name, rows in kinds.items()}
        found[pair] = {name: round(float(rows["AP"].iloc[0]), 3) for name, rows in own.items() if len(rows)}
        gains = own["pgd"]["gain"].dropna()
        if len(gains):
            found[pair]["gain"] = round(float(gains.iloc[0]), 3)
    return found


def main() -> None:
    results: Path = command_parser("summary").parse_args().results
    path = results / "table.csv"
    if not path.is_file():
        raise ReportError(f"{path} is missing; `dvc repro report` writes it")
    # a method and an inheritance are called `none`, which is no missing value
    found = summary(pd.read_csv(path, keep_default_na=False, na_values=[""]))
    (results / "summary.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(found))


if __name__ == "__main__":
    run_cli(main, ReportError)
