"""Runs that are the same but for the length of their training."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pandas as pd

from benchmark.evidence.record import TEACHER
from benchmark.evidence.records import FOOTING

PREFIX = "method."
SAME = tuple(key for key in FOOTING if key != "iterations")


def settings_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a run's method; those that are None are left out."""
    settings = {key[len(PREFIX) :]: value for key, value in record.items() if key.startswith(PREFIX)}
    # pandas looks into lists (faults, level_weights); only the cell of a run without the setting is NaN
    return {key: value for key, value in settings.items() if isinstance(value, list) or pd.notna(value)}


def lengths(records: pd.DataFrame) -> pd.DataFrame:
    """The runs of one method with the same settings and several lengths: ``run``, ``iterations`` and ``line``, the name
    of the longest; shortest first."""
    students = records[records["role"] != TEACHER].drop_duplicates("run")
    rows: dict[tuple, list[dict]] = {}
    for record in students.to_dict("records"):
        settings = json.dumps(settings_of(record), sort_keys=True, default=str)
        own = {"run": record["run"], "iterations": record["iterations"]}
        rows.setdefault((*(record[key] for key in (*SAME, "method")), settings), []).append(own)
    found = []
    for group in rows.values():
        group.sort(key=lambda one: one["iterations"])
        if group[0]["iterations"] < group[-1]["iterations"]:
            found += [{**one, "line": group[-1]["run"]} for one in group]
    return pd.DataFrame(found, columns=["run", "iterations", "line"])


def whole(table: pd.DataFrame, records: pd.DataFrame) -> pd.DataFrame:
    """The rows of a table of runs without those that are shorter trainings of others."""
    return table[~table["run"].isin(shortened(records))]


def shortened(records: pd.DataFrame) -> set[str]:
    """The runs of which there is a longer one that is the same otherwise."""
    found = lengths(records)
    return set(found["run"][found["run"] != found["line"]])
