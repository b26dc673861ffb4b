"""What the runs left behind, as tables: records, curves, costs.

Reads, aggregates and formats; plots nothing and writes nothing. A data set has a kind of metric, ``coco`` or
``crowdhuman``: figures of different kinds never share a table.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from benchmark.evidence.stats import mean_sd, t_interval

TEACHER = "teacher"
#: Accuracy by kind of metric, in percent; lower is better for MR alone.
METRICS = {
    "coco": ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large", "AR100"),
    "crowdhuman": ("AP", "MR", "JI"),
}
COSTS = ("train_seconds", "eval_seconds", "peak_memory_mb", "parameters", "extra_parameters")
ENVIRONMENT = (
    *("python", "torch", "torchvision", "mmdet", "mmengine", "mmcv", "numpy"),
    *("pycocotools", "platform", "cpu", "threads", "gpu", "git_revision"),
)
#: Runs that agree on these differ in the method alone, so that their difference may be called its gain.
FOOTING = ("pair", "dataset", "detector", "backbone", "iterations", "batch_size", "lr", "options", "inherit")
REQUIRED = ("run", "seed", "role", "method", *FOOTING, *COSTS)
#: Columns of ``results/cost.csv`` (benchmark/cost.py).
COST_COLUMNS = ("run", "method", "extra_parameters", "step_ms", "step_ratio", "peak_mb", "extra_mb")


class ReportError(RuntimeError):
    """Something the report needs is missing or unusable; the message is one line that names it."""


def read_json(path: Path) -> Any:
    """The content of a JSON file; :class:`ReportError` naming it when it is missing or broken."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ReportError(f"{path} is missing") from None
    except (OSError, ValueError) as error:
        raise ReportError(f"{path} cannot be read: {error}") from None


def expected_records(params: Path) -> list[str]:
    """The name of every record that ``params.yaml`` asks for, the teachers' first.

    The `plan` stage checks the file in depth; its loader imports mmdet, which a report has no use for.
    """
    try:
        content = yaml.safe_load(params.read_text(encoding="utf-8"))
        teachers = [f"{TEACHER}-{pair}" for pair in content["pairs"]]
        students = [f"{run}-{seed}" for run, seed in product(content["runs"], content.get("seeds", [0]))]
    except FileNotFoundError:
        raise ReportError(f"{params} is missing") from None
    except (yaml.YAMLError, AttributeError, KeyError, TypeError):
        raise ReportError(f"{params} must hold mappings 'pairs' and 'runs' and a list 'seeds'") from None
    if not students:
        raise ReportError(f"{params} names no run or no seed")
    return teachers + students


def read_record(path: Path) -> dict[str, Any]:
    """One record, checked: it has all that tables need, AP (MR) is a number, and the file's name fits.

    Records without ``metric`` are of the kind ``coco``, those without ``options`` have none.
    """
    record = {"metric": "coco", "options": "", **read_json(path)}
    if record["metric"] not in METRICS:
        raise ReportError(f"{path} has the metric '{record['metric']}', not one of {', '.join(METRICS)}")
    accuracy = METRICS[record["metric"]]
    absent = [key for key in (*REQUIRED, *accuracy) if key not in record]
    if absent:
        raise ReportError(f"{path} has no '{absent[0]}'")
    if key_of(record) != path.stem:
        raise ReportError(f"{path} holds another record, {key_of(record)}")
    for name in accuracy if record["metric"] == "crowdhuman" else ("AP",):
        if record[name] is None or not math.isfinite(record[name]):
            raise ReportError(f"{path} has no {name}: it is {record[name]}")
    return record


def load_records(results: Path, params: Path) -> pd.DataFrame:
    """One row a record, pair by pair: the teacher, then every run with every seed; all must be there.

    Records of runs that ``params.yaml`` does not name (renamed, left over) are not read.
    """
    paths = [results / "runs" / f"{name}.json" for name in expected_records(params)]
    found = [read_record(path) for path in paths]
    pairs = list(dict.fromkeys(record["pair"] for record in found))
    # dtype object keeps whole numbers whole in columns that other runs lack
    records = pd.DataFrame(sorted(found, key=lambda record: pairs.index(record["pair"])), dtype=object)
    return records.astype(dict.fromkeys((*metrics_of(records), *COSTS), float))


def load_kind(results: Path, kind: str, otherwise: Path) -> tuple[Path, pd.DataFrame]:
    """The records of one kind of metric in a results folder beside its ``params.yaml``, and that folder.

    Where an experiment has no run of this kind, those of ``otherwise`` are taken.

    Raises:
        ReportError: there are none there either, or some that should be there cannot be read.
    """
    for folder in (results, otherwise):
        records = load_records(folder, folder.parent / "params.yaml")
        own = records[records["metric"] == kind]
        if len(own):
            return folder, own
    raise ReportError(f"{results} holds no run with the metric '{kind}'")


def by_kind(rows: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """The kinds of metric that there are, COCO's first, with their rows of records or of an aggregated table."""
    for kind in METRICS:
        if len(own := rows[rows["metric"] == kind]):
            yield kind, own


def metrics_of(records: pd.DataFrame) -> list[str]:
    """The names of all accuracies that these records have."""
    return list(dict.fromkeys(name for kind, _ in by_kind(records) for name in METRICS[kind]))


def baseline_of(records: pd.DataFrame, run: str) -> str | None:
    """The run on the same footing without a method; None for the teacher, such a run, or without one."""
    first = records.drop_duplicates("run").set_index("run")
    own = first.loc[run]
    if own["role"] == TEACHER or own["method"] == "none":
        return None
    plain = first[(first["role"] != TEACHER) & (first["method"] == "none")]
    same = [name for name, row in plain.iterrows() if all(row[key] == own[key] for key in FOOTING)]
    if len(same) > 1:
        raise ReportError(f"run '{run}' has more than one baseline on the same footing: {', '.join(same)}")
    return same[0] if same else None


def paired(records: pd.DataFrame, run: str, baseline: str | None, metric: str) -> pd.Series:
    """What a run has more of a metric than its baseline, by seed: these share initialisation and data order."""
    own, plain = (records[records["run"] == name].set_index("seed")[metric] for name in (run, baseline))
    return (own - plain).dropna().astype(float)


def aggregate(records: pd.DataFrame) -> pd.DataFrame:
    """One row a run: mean and standard deviation (n - 1) over seeds, and what it gains over the baseline.

    ``gain`` (AP) and ``MR_change`` are paired by seed, with the ends of their t-interval (``_low``, ``_high``) where
    there are several seeds. A resumed training recorded its last part only and gives no time.
    """
    gains = {"gain": "AP"} | ({"MR_change": "MR"} if "MR" in metrics_of(records) else {})
    rows = []
    for run, group in records.groupby("run", sort=False):
        row = {key: group[key].iloc[0] for key in ("run", "role", "method", "metric", *FOOTING)}
        if "method.place" in group:
            row["place"] = group["method.place"].iloc[0]
        row["seeds"] = len(group)
        for metric in metrics_of(records):
            row[metric], row[f"{metric}_sd"] = group[metric].mean(), group[metric].std()
        row["baseline"] = baseline_of(records, run)
        for name, metric in gains.items():
            differences = paired(records, run, row["baseline"], metric)
            row[name], row[f"{name}_sd"] = mean_sd(differences)
            row[f"{name}_low"], row[f"{name}_high"] = t_interval(differences)
        row["interval"] = None if np.isnan(row["gain_low"]) else "seeds"
        whole = group[~group["resumed"].eq(True)] if "resumed" in group else group
        row["train_minutes"] = whole["train_seconds"].mean() / 60
        row |= {key: group[key].mean() for key in ("peak_memory_mb", "parameters", "extra_parameters")}
        rows.append(row)
    return pd.DataFrame(rows)


def with_intervals(table: pd.DataFrame, results: Path) -> pd.DataFrame:
    """The table with the intervals over images that the report has written; those of other figures are left out."""
    path = results / "table.csv"
    if not path.is_file():
        return table
    written = pd.read_csv(path).set_index("run").reindex(table["run"])
    if "interval" not in written:
        return table
    same = (
        written["interval"].eq("images") & np.isclose(written["gain"], table.set_index("run")["gain"], atol=1e-3)
    ).array
    table = table.copy()
    for name in [name for name in table if name.endswith(("_low", "_high"))]:
        table[name] = table[name].mask(same, written[name].array)
    table["interval"] = table["interval"].mask(same, "images")
    return table


def key_of(record: Mapping[str, Any]) -> str:
    """The name of a record in metrics and file names: ``pgd-0``, ``teacher-gfl``."""
    return record["run"] if record["role"] == TEACHER else f"{record['run']}-{record['seed']}"


def load_curves(results: Path, records: pd.DataFrame) -> pd.DataFrame:
    """The students' training curves in one long table; AP is NaN where it was not measured."""
    parts = []
    for record in records[records["role"] != TEACHER].to_dict("records"):
        path = results / "curves" / f"{key_of(record)}.csv"
        try:
            curve = pd.read_csv(path)[["step", "loss", "AP"]]
        except FileNotFoundError:
            raise ReportError(f"{path} is missing") from None
        except (KeyError, ValueError) as error:
            raise ReportError(f"{path} is no curve with step, loss and AP: {error}") from None
        own = {key: record.get(key) for key in ("run", "seed", "method", "pair", "method.place")}
        parts.append(curve.assign(**own).rename(columns={"method.place": "place"}))
    return pd.concat(parts, ignore_index=True)


def load_costs(results: Path, table: pd.DataFrame) -> pd.DataFrame:
    """The measured costs of the table's runs, with their gain; no row where no cost was measured.

    ``step_ratio`` and ``extra_mb`` are relative to the student alone.
    """
    path = results / "cost.csv"
    if not path.exists():
        return pd.DataFrame(columns=[*COST_COLUMNS, "gain"])
    try:
        costs = pd.read_csv(path)[list(COST_COLUMNS)]
    except (KeyError, ValueError) as error:
        raise ReportError(f"{path} is not what `python -m benchmark.cost` writes: {error}") from None
    known = [name for name in ("run", "gain", "role", "place") if name in table]
    return costs.merge(table[known], on="run")
