"""The tables of a report's page: their cells, and for each row its dot, its words, its note and its files."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from benchmark.evidence import tables
from benchmark.evidence.by_class import by_class
from benchmark.evidence.captions import CROWD_NOTES, INTERVALS, NOTES
from benchmark.evidence.record import TEACHER, read_json
from benchmark.evidence.records import by_kind
from benchmark.evidence.tables import number
from benchmark.figures.looks import legend_of, paint
from benchmark.figures.pages import link, shade

#: what rows can be chosen by, beside their place
CHOICES = {"dataset": "data set", "detector": "detector", "pair": "pair"}


def blocks(records: pd.DataFrame, table: pd.DataFrame, results: Path, work: Path, root: Path) -> list[dict[str, Any]]:
    """The tables of the page and of ``table.md``, one a kind of metric: heading, constants, cells and notes, and for
    the page dots, their legend and each run's files; ``root`` is the repository, of configs and methods."""
    found = list(by_kind(table))
    return [
        {
            "title": "Results" if len(found) == 1 else f"Results by {tables.KIND_NAMES[kind]}",
            "constants": tables.constants(rows),
            "cells": tables.summary(rows),
            "colours": ["" if row["role"] == TEACHER else paint(row) for _, row in rows.iterrows()],
            "legend": legend(row for _, row in rows.iterrows() if row["role"] != TEACHER),
            "choices": choices(rows),
            "files": [files(results, records[records["run"] == run], root) for run in rows["run"]],
            "notes": notes(rows, kind, work),
        }
        for kind, rows in found
    ]


def legend(rows: Iterable[Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    """The places of distillation that there are among rows: name, colour, and what the filter finds them by."""
    return [(name, colour, token("place", name)) for name, colour in legend_of(rows).items()]


def choices(rows: pd.DataFrame) -> dict[str, list[tuple[str, str]]]:
    """What divides rows into data sets, detectors or pairs: names, and what the filter finds each by."""
    found: dict[str, list[tuple[str, str]]] = {}
    known: list[list[int]] = []
    for kind, title in CHOICES.items():
        parts = pd.factorize(rows[kind])[0].tolist()
        # pairs that are named for their detectors divide rows as these do
        if len(set(parts)) > 1 and parts not in known:
            known.append(parts)
            found[title] = [(name, token(kind, name)) for name in rows[kind].unique()]
    return found


def token(kind: str, name: str) -> str:
    """A word that stands on the rows of this kind and on no others (``head+neck`` holds ``neck``)."""
    return f"{kind}:{name.split(' (')[0].replace(' ', '-')}"


def words(table: pd.DataFrame) -> dict[str, str]:
    """What the filter finds a run by beside what its row shows: place, method, data set, detector, metric, pair."""
    return {row["run"]: " ".join(_words(row)) for row in table.to_dict("records")}


def _words(row: Mapping[str, Any]) -> Iterable[str]:
    if row["role"] == TEACHER:
        yield TEACHER
    else:
        (place,) = legend_of([row])
        yield from (token("place", place), place, row["method"], row["method_title"])
    yield from (token(kind, row[kind]) for kind in CHOICES)
    yield from (row["dataset"], row["detector"], tables.KIND_NAMES[row["metric"]], row["metric"], row["pair"])


def files(results: Path, own: pd.DataFrame, root: Path) -> dict[str, list[tuple[str, str]]]:
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
    found |= {name: [("", link(root / file, page))] for name, file in sources.items() if (root / str(file)).is_file()}
    return {name: links for name, links in found.items() if links}


def commits(records: pd.DataFrame) -> dict[str, list[str]]:
    """The commits that each run was trained with, short; none where its records do not tell."""
    revisions = records.get("environment.git_revision", pd.Series(index=records.index, dtype=object))
    return {
        run: [str(one)[: tables.SHORT] for one in dict.fromkeys(own.dropna())]
        for run, own in revisions.groupby(records["run"], sort=False)
    }


def notes(rows: pd.DataFrame, kind: str, work: Path) -> str:
    """What stands below a table."""
    parts = [NOTES, *(text for name, text in INTERVALS.items() if (rows["interval"] == name).any())]
    parts.append(tables.resolution(rows))
    parts.append(CROWD_NOTES if kind == "crowdhuman" else sizes(work, rows["dataset"].unique()))
    return " ".join(filter(None, parts))


def sizes(work: Path, datasets: Iterable[str]) -> str:
    """What S, M and L mean; how large that is on each data set that is prepared here."""
    parts = []
    for name in datasets:
        path = work / "dataset" / name / "dataset.json"
        if path.is_file():
            small, medium = (math.isqrt(round(area)) for area in read_json(path)["areas"])
            parts.append(f"up to {small}², up to {medium}² and above ({name})")
    area = f" objects of an area {'; '.join(parts)}, in pixels" if parts else " small, medium and large objects"
    return f"S, M, L:{area}."


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
