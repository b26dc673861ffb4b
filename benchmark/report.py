"""Stage `report`: tables, figures and one page from the records of all runs.  ``python -m benchmark.report``

Stops with one line that names the file when a record, a curve or the detections of a shown run are missing: a
table that silently lacks a run is worse than none.
"""

from __future__ import annotations

if __name__ == "__main__":
    # help and usage errors come before the imports that take seconds
    from benchmark.experiment.cli import answer_early

    answer_early("report")

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from benchmark.evidence import tables
from benchmark.evidence.by_class import by_class
from benchmark.evidence.captions import CAPTIONS, CROWD_NOTES, INTERVALS, NOTES, SAMPLES
from benchmark.evidence.experiments import ROOT_NAME, load_titles
from benchmark.evidence.intervals import with_bootstrap
from benchmark.evidence.published import CAVEAT, published
from benchmark.evidence.pull import BAND, pull
from benchmark.evidence.record import CLASS, METRICS, TEACHER, ReportError, read_json
from benchmark.evidence.records import (
    COSTS,
    FOOTING,
    METHOD,
    aggregate,
    by_kind,
    load_costs,
    load_curves,
    load_records,
    metrics_of,
)
from benchmark.evidence.tables import markdown, number
from benchmark.experiment.cli import command_parser, run_cli
from benchmark.experiment.settings import load
from benchmark.experiment.workspace import ROOT
from benchmark.figures import ablation as plots_ablation
from benchmark.figures import cost as plots_cost
from benchmark.figures import plots, samples
from benchmark.figures.pages import data_uri, link, png, shade, template, write
from benchmark.verdict import verdict

#: the analyses; the stage `notebooks` runs them
NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
#: what each experiment is called
TITLES = ROOT / "experiments" / "titles.yaml"
SEED_COLUMNS = ("run", "seed", "role", "method", *FOOTING)
#: of what a record says of the machine
ENVIRONMENT = "environment."


def csv(table: pd.DataFrame) -> str:
    """CSV with four decimals at most, so that a diff shows what changed."""
    return table.round(4).to_csv(index=False, float_format="%.10g", lineterminator="\n")


def metrics(records: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Accuracy by run and seed, for ``dvc metrics``; what could not be measured is left out."""
    return {
        record["key"]: {name: round(record[name], 3) for name in METRICS[record["metric"]] if pd.notna(record[name])}
        for record in records.to_dict("records")
    }


def distinct(values: pd.Series) -> str:
    """The different values of a column, in order of appearance."""
    return ", ".join(dict.fromkeys("none" if pd.isna(value) else str(value) for value in values))


def settings(records: pd.DataFrame) -> dict[str, dict[str, str]]:
    """For each run all that was recorded but for accuracy and environment; all values where seeds differ."""
    accuracy = metrics_of(records)
    elsewhere = (key for key in records if key.startswith((CLASS, ENVIRONMENT)))
    skip = {"key", "run", "metric", *METHOD[1:], *accuracy, *elsewhere}
    table = {}
    for run, group in records.groupby("run", sort=False):
        present = group.drop(columns=[key for key in group if key in skip]).dropna(axis=1, how="all")
        table[run] = {key: distinct(readable(present[key])) for key in present}
        for name in accuracy if group["metric"].iloc[0] == "crowdhuman" else ("AP",):
            if group[name].notna().any():
                table[run][f"{name} by seed"] = ", ".join(number(value) for value in group[name])
    return table


def readable(column: pd.Series) -> pd.Series:
    """Floats without a long tail, and without a point where they are whole; lists as text."""

    def text(value: Any) -> Any:
        if isinstance(value, list):
            return " ".join(str(text(one)) for one in value) or "none"
        return f"{value:.10g}" if isinstance(value, float) else value

    return column.map(text)


def blocks(records: pd.DataFrame, table: pd.DataFrame, results: Path, work: Path) -> list[dict[str, Any]]:
    """The tables of the page and of ``table.md``, one a kind of metric: heading, constants, cells and notes, and for
    the page dots, their legend and each run's files."""
    found = list(by_kind(table))
    return [
        {
            "title": "Results" if len(found) == 1 else f"Results by {tables.KIND_NAMES[kind]}",
            "constants": tables.constants(rows),
            "cells": tables.summary(rows),
            "colours": ["" if row["role"] == TEACHER else plots.paint(row) for _, row in rows.iterrows()],
            "legend": plots.legend_of(row for _, row in rows.iterrows() if row["role"] != TEACHER),
            "files": [files(results, records[records["run"] == run]) for run in rows["run"]],
            "notes": notes(rows, kind, work),
        }
        for kind, rows in found
    ]


def files(results: Path, own: pd.DataFrame) -> dict[str, list[tuple[str, str]]]:
    """Record and curve of a run, by seed, its config and its method, as they are reached from the results folder."""
    places = {"record": ("runs", "json"), "curve": ("curves", "csv")}
    found = {
        name: [
            (str(record["seed"]), place)
            for record in own.to_dict("records")
            if (results / (place := f"{folder}/{record['key']}.{ending}")).is_file()
        ]
        for name, (folder, ending) in places.items()
    }
    first, page = own.iloc[0], results / "report.html"
    sources = {"config": first["config"], "method": f"pgd/methods/{first['method']}.py"}
    found |= {name: [("", link(ROOT / file, page))] for name, file in sources.items() if (ROOT / str(file)).is_file()}
    return {name: links for name, links in found.items() if links}


def notes(rows: pd.DataFrame, kind: str, work: Path) -> str:
    """What stands below a table."""
    parts = [NOTES, *(text for name, text in INTERVALS.items() if (rows["interval"] == name).any())]
    parts.append(CROWD_NOTES if kind == "crowdhuman" else sizes(work, rows["dataset"].unique()))
    return " ".join(parts)


def classes(records: pd.DataFrame, table: pd.DataFrame) -> list[dict[str, Any]]:
    """The tables of gains by class, each gain a text and its colour."""
    found = []
    for one in by_class(records, table):
        most = one.gains.abs().max().max()
        rows = [
            (name, number(one.plain[name]), [(number(gain, sign=True), shade(gain, most)) for gain in gains])
            for name, gains in zip(one.gains.index, one.gains.to_numpy(), strict=True)
        ]
        found.append({"baseline": one.baseline, "runs": list(one.gains.columns), "rows": rows})
    return found


def page(
    records: pd.DataFrame,
    table: pd.DataFrame,
    costs: pd.DataFrame,
    images: dict[str, bytes],
    outcome: tuple[bool | None, str],
    shown_tables: list[dict[str, Any]],
    results: Path,
    params: Path,
) -> str:
    """The self-contained HTML page."""
    passed, text = outcome
    students = table["role"] != TEACHER
    folder = params.resolve().parent
    title = load_titles(TITLES).get(ROOT_NAME if folder == ROOT else folder.name)
    return template("report.html").render(
        title=title,
        run_notes={name: run.note for name, run in load(params).runs.items() if run.note},
        dataset=distinct(records["dataset"]),
        detector=distinct(records["detector"]),
        seeds=int(table.loc[students, "seeds"].max()),
        runs=int(students.sum()),
        teachers=int((~students).sum()),
        headline=tables.gains_sentence(table),
        made=tables.made(records),
        verdict={True: "yes", False: "no", None: ""}[passed],
        verdict_text=text.splitlines()[0],
        words=tables.WORDS,
        unresolved=tables.UNRESOLVED,
        tables=shown_tables,
        classes=classes(records, table),
        costs=tables.costs(costs) if len(costs) else None,
        pulls=pulls if len(pulls := tables.pulls(pull(records, results))) else None,
        band=BAND,
        figures=[
            {"name": name, "alt": alt, "caption": caption, "uri": data_uri(images[name])}
            for name, (alt, caption) in captions(records).items()
            if name in images
        ],
        settings=settings(records),
        environment={
            key.removeprefix(ENVIRONMENT): distinct(records[key]) for key in records if key.startswith(ENVIRONMENT)
        },
        published=published(set(records["metric"])),
        caveat=CAVEAT,
        notebooks={path.stem: link(path, results / "report.html") for path in sorted(NOTEBOOKS.glob("*.ipynb"))},
    )


def sizes(work: Path, datasets: Iterable[str]) -> str:
    """What S, M and L mean on each data set."""
    parts = []
    for name in datasets:
        areas = read_json(work / "dataset" / name / "dataset.json")["areas"]
        small, medium = (math.isqrt(round(area)) for area in areas)
        parts.append(f"up to {small}², up to {medium}² and above ({name})")
    return f"S, M, L: objects of an area {'; '.join(parts)}, in pixels."


def pictured(records: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The figures of sample pictures, one a kind of metric, with the records that they are about."""
    kinds = list(by_kind(records))
    return {"samples" if len(kinds) == 1 else f"samples_{kind}": rows for kind, rows in kinds}


def captions(records: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """Short text and caption of every figure there may be."""
    own = {}
    for name, rows in pictured(records).items():
        shown = ", ".join(f"{title} ({key})" for title, key in samples.sample_runs(rows).items())
        own[name] = (SAMPLES[0], SAMPLES[1].format(shown=shown))
    return CAPTIONS | own


def figures(
    records: pd.DataFrame, table: pd.DataFrame, costs: pd.DataFrame, curves: pd.DataFrame, work: Path
) -> dict[str, bytes]:
    """Every figure that there is something for, as PNG by name."""
    drawn = {
        "ap": plots.ap_by_run(records, table),
        "curves": plots.curves(curves),
    }
    for name, own in pictured(records).items():
        shown = samples.load_samples(work, own["dataset"].iloc[0], samples.sample_runs(own))
        drawn[name] = samples.figure(shown)
    if (table["metric"] == "crowdhuman").any():
        drawn["mr"] = plots.mr_by_run(records, table)
    if len(plots_ablation.variants(records)):
        drawn["ablation"] = plots_ablation.ablation(records, table)
    if costs["gain"].notna().any():
        drawn["cost"] = plots_cost.cost(costs)
    return {name: png(figure) for name, figure in drawn.items()}


def report(results: Path, work: Path, params: Path) -> str:
    """Write every result; returns the line that tells about it."""
    records = load_records(results, params)
    table = tables.by_gain(with_bootstrap(records, aggregate(records), results))
    costs = load_costs(results, table)
    expected = results / "expected.json"
    outcome = verdict(records, read_json(expected) if expected.exists() else None)
    curves = load_curves(results, records)
    images = figures(records, table, costs, curves, work)
    shown = blocks(records, table, results, work)
    write(results / "table.csv", csv(table))
    heading = "## {title}\n\n" if len(shown) > 1 else ""
    parts = [
        f"{heading.format(**block)}{markdown(block['cells'])}\n{block['constants']} {block['notes']}\n"
        for block in shown
    ]
    write(results / "table.md", "\n".join(parts))
    columns = (*SEED_COLUMNS, *metrics_of(records), *COSTS, "checkpoint_sha256")
    write(results / "seeds.csv", csv(records[[name for name in columns if name in records]]))
    write(results / "metrics.json", json.dumps(metrics(records), indent=2) + "\n")
    write(results / "plots" / "ap.csv", csv(records[["run", "seed", "AP"]]))
    write(results / "plots" / "curves.csv", csv(curves.dropna(subset="AP")[["run", "seed", "step", "AP"]]))
    for name, image in images.items():
        write(results / "figures" / f"{name}.png", image)
    write(results / "verdict.md", outcome[1])
    write(results / "report.html", page(records, table, costs, images, outcome, shown, results, params))
    return f"{results / 'report.html'} written. {outcome[1].splitlines()[0]}"


def main(argv: list[str] | None = None) -> None:
    """Entry point; exits with 1 and one line on an error."""
    args = command_parser("report").parse_args(argv)
    run_cli(lambda: print(report(args.results, args.work, args.params)), ReportError)


if __name__ == "__main__":
    main()
