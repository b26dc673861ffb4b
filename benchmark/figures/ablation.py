"""What a change of one setting does: the runs of a method that differ from one of them, beside each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from benchmark.evidence.lengths import settings_of
from benchmark.evidence.present import records_there
from benchmark.evidence.record import TEACHER, ReportError
from benchmark.evidence.records import FOOTING
from benchmark.evidence.tables import chances
from benchmark.figures.looks import ROW, WIDTH, gain_label, lowest, paint, style
from benchmark.figures.plots import draw_gains


def changed(base: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """The settings in which two runs differ, with the other's values."""
    return {key: other.get(key) for key in {**base, **other} if base.get(key) != other.get(key)}


def variants(records: pd.DataFrame) -> pd.DataFrame:
    """The runs that are changes of another: ``base``, ``setting`` (the changed ones, sorted), ``value`` and ``run``.

    The base of a method's runs on one footing is the one that the others have most in common with. Two runs say nothing
    of which is the change of the other: at least three are needed. Numbers are in their order, others in that of the
    records.
    """
    students = records[(records["role"] != TEACHER) & (records["method"] != "none")]
    rows = []
    for _, group in students.drop_duplicates("run").groupby(["method", *FOOTING], sort=False, dropna=False):
        by_run = {record["run"]: settings_of(record) for record in group.to_dict("records")}
        if len(by_run) < 3:
            continue
        base = min(by_run, key=lambda run: sum(len(changed(by_run[run], other)) for other in by_run.values()))
        for run, settings in by_run.items():
            if change := dict(sorted(changed(by_run[base], settings).items())):
                row = {"base": base, "setting": ", ".join(change), "value": list(change.values()), "run": run}
                rows.append(row)
    found = pd.DataFrame(rows, columns=["base", "setting", "value", "run"])
    parts = [part.iloc[order(part["value"])] for _, part in found.groupby(["base", "setting"], sort=False)]
    return pd.concat(parts, ignore_index=True) if parts else found


def find(folders: Sequence[Path], setting: str) -> tuple[Path, pd.DataFrame, str]:
    """The first results folder with changes of ``setting`` among its runs, its records, and sentences of what it lacks.

    Raises:
        ReportError: none has any, or none can be read.
    """
    for folder in folders:
        try:
            records, lacking = records_there(folder, folder.parent / "params.yaml")
        except ReportError:
            continue
        if (variants(records)["setting"] == setting).any():
            return folder, records, lacking
    raise ReportError(f"no runs that differ in '{setting}' in {', '.join(map(str, folders))}")


def order(values: pd.Series) -> list[int]:
    """The order of changes to one setting."""
    numeric = all(isinstance(one, (int, float)) and not isinstance(one, bool) for value in values for one in value)
    return sorted(range(len(values)), key=lambda i: values.iloc[i] if numeric else [i])


def text(values: list[Any]) -> str:
    """The values of a change; one where all are the same."""

    def word(value: Any) -> str:
        if isinstance(value, list):
            return " + ".join(map(word, value))
        return f"{value:g}" if isinstance(value, float) else str(value)

    return ", ".join(dict.fromkeys(map(word, values)))


def named(change: Mapping[str, Any]) -> str:
    """A row of :func:`variants` in a few words: settings with their value; where they have several, the run's name."""
    value = text(change["value"])
    return change["run"] if ", " in value else f"{change['setting']} = {value}"


def ablation(records: pd.DataFrame, table: pd.DataFrame) -> Figure:
    """The gain of every change with its interval, by setting; a dashed line and a band are those of the base.

    Args:
        records: with at least one row of :func:`variants`.
        table: :func:`benchmark.evidence.records.aggregate` of them, with intervals.
    """
    style()
    found, by_run = variants(records), table.set_index("run", drop=False)
    lines: list[tuple[str, pd.Series]] = []
    spans = []
    for base, rows in found.groupby("base", sort=False):
        start = len(lines)
        lines.append((base, by_run.loc[base]))
        lines += [(named(row), by_run.loc[row["run"]]) for _, row in rows.iterrows()]
        spans.append((start, len(lines), by_run.loc[base]))
    figure = Figure(figsize=(WIDTH, ROW * len(lines) + 0.95), layout="constrained")
    axes = figure.subplots()
    draw_gains(axes, lines, "gain", floor=lowest(row["gain"] for _, row in lines))
    for start, end, base in spans:
        box = {"ymin": start - 0.5, "ymax": end - 0.5, "color": paint(base)}
        axes.vlines(base["gain"], **box, linewidth=1.1, linestyle=(0, (5, 3)), zorder=1)
        if pd.notna(base["gain_low"]):
            area = [base["gain_low"], base["gain_high"]]
            axes.fill_betweenx([box["ymin"], box["ymax"]], *area, color=box["color"], alpha=0.1, linewidth=0, zorder=0)
    over = chances(row["interval"] for _, row in lines)
    axes.set(ylim=(len(lines) - 0.4, -0.6), xlabel=gain_label("gain in AP", over))
    axes.set_yticks(range(len(lines)), [name for name, _ in lines])
    bases = [start for start, _, _ in spans]
    for y, label in enumerate(axes.get_yticklabels()):
        label.set_fontweight("bold" if y in bases else "normal")
    axes.grid(axis="y", visible=False)
    axes.margins(x=0.08)
    sns.despine(ax=axes)
    return figure
