"""What the runs left behind, as tables: records, curves, costs.

Reads, aggregates and formats; plots nothing and writes nothing. A data set has a kind of metric, ``coco`` or
``crowdhuman``: figures of different kinds never share a table.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from benchmark.evidence.record import METRICS, TEACHER, Record, ReportError
from benchmark.evidence.stats import mean_sd, t_interval
from benchmark.experiment.settings import Job, SettingsError, load

COSTS = ("train_seconds", "eval_seconds", "peak_memory_mb", "parameters", "extra_parameters")
#: Runs that agree on these differ in the method alone, so that their difference may be called its gain.
FOOTING = ("pair", "dataset", "config", "detector", "backbone", "iterations", "batch_size", "lr", "options", "inherit")
#: What a record says of the method, apart from its settings.
METHOD = ("method", "method_title", "method_place")
#: Columns of ``results/cost.csv`` (benchmark/cost.py).
COST_COLUMNS = ("run", "method", "extra_parameters", "step_ms", "step_ratio", "peak_mb", "extra_mb")
#: And where a method has learned on the teacher before, the seconds that it took.
FIRST_STAGE = "first_stage_s"
#: And the quartiles of ``step_ratio`` over the turns; older files lack them.
COST_SPREAD = ("step_ratio_low", "step_ratio_high")


def expected_jobs(params: Path) -> list[Job]:
    """Every training that ``params.yaml`` asks for, the teachers' first."""
    try:
        return load(params).jobs
    except SettingsError as error:
        raise ReportError(str(error)) from None


def expected_records(params: Path) -> list[str]:
    """The name of every record that ``params.yaml`` asks for, the teachers' first."""
    return [job.label for job in expected_jobs(params)]


def load_records(results: Path, params: Path) -> pd.DataFrame:
    """One row a record (:meth:`Record.row`), pair by pair: the teacher, then every run with every seed; none may lack.

    Records of runs that ``params.yaml`` does not name (renamed, left over) are not read.
    """
    paths = [results / "runs" / f"{name}.json" for name in expected_records(params)]
    return frame([Record.read(path) for path in paths])


def frame(found: Sequence[Record]) -> pd.DataFrame:
    """One row a record (:meth:`Record.row`), pair by pair in order of appearance; there must be one."""
    pairs = list(dict.fromkeys(record.pair for record in found))
    rows = [record.row() for record in sorted(found, key=lambda one: pairs.index(one.pair))]
    # dtype object keeps whole numbers whole in columns that other runs lack
    records = pd.DataFrame(rows, dtype=object)
    return records.astype(dict.fromkeys((*metrics_of(records), *COSTS), float))


def load_kind(results: Path, kind: str, otherwise: Path) -> tuple[Path, pd.DataFrame]:
    """The records of one kind of metric in a results folder beside its ``params.yaml``, and that folder.

    Where an experiment has no run of this kind, those of ``otherwise`` are taken.

    Raises:
        ReportError: there are none there either, or some that should be there cannot be read.
    """
    for folder in (results, otherwise):
        records = load_records(folder, folder.parent / "params.yaml")
        of_kind = records[records["metric"] == kind]
        if len(of_kind):
            return folder, of_kind
    raise ReportError(f"{results} holds no run with the metric '{kind}'")


def by_kind(rows: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """The kinds of metric that there are, COCO's first, with their rows of records or of an aggregated table."""
    for kind in METRICS:
        if len(of_kind := rows[rows["metric"] == kind]):
            yield kind, of_kind


def metrics_of(records: pd.DataFrame) -> list[str]:
    """The names of all accuracies that these records have."""
    return list(dict.fromkeys(name for kind, _ in by_kind(records) for name in METRICS[kind]))


def baseline_of(records: pd.DataFrame, run: str) -> str | None:
    """The run on the same footing without a method; None for the teacher, such a run, or without one."""
    first = records.drop_duplicates("run").set_index("run")
    record = first.loc[run]
    if record["role"] == TEACHER or record["method"] == "none":
        return None
    plain = first[(first["role"] != TEACHER) & (first["method"] == "none")]
    same = [name for name, row in plain.iterrows() if all(row[key] == record[key] for key in FOOTING)]
    if len(same) > 1:
        raise ReportError(f"run '{run}' has more than one baseline on the same footing: {', '.join(same)}")
    return same[0] if same else None


def paired(records: pd.DataFrame, run: str, baseline: str | None, metric: str) -> pd.Series:
    """What a run has more of a metric than its baseline, by seed: these share initialisation and data order."""
    taught, plain = (records[records["run"] == name].set_index("seed")[metric] for name in (run, baseline))
    return (taught - plain).dropna().astype(float)


def aggregate(records: pd.DataFrame) -> pd.DataFrame:
    """One row a run: mean and standard deviation (n - 1) over seeds, and what it gains over the baseline.

    ``gain`` (AP) and ``MR_change`` are paired by seed, with the ends of their t-interval (``_low``, ``_high``) where
    there are several seeds. A resumed training recorded its last part only and gives no time.
    """
    gains = {"gain": "AP"} | ({"MR_change": "MR"} if "MR" in metrics_of(records) else {})
    rows = []
    for run, group in records.groupby("run", sort=False):
        if mixed := [key for key in FOOTING if group[key].astype(str).nunique() > 1]:
            values = " and ".join(dict.fromkeys(group[mixed[0]].astype(str)))
            raise ReportError(f"the seeds of {run} differ in {mixed[0]}: {values}; train the older ones anew")
        row = {key: group[key].iloc[0] for key in ("run", "role", *METHOD, "metric", *FOOTING)}
        row["seeds"] = len(group)
        for metric in metrics_of(records):
            row[metric], row[f"{metric}_sd"] = group[metric].mean(), group[metric].std()
        row["baseline"] = baseline_of(records, run)
        for name, metric in gains.items():
            differences = paired(records, run, row["baseline"], metric)
            row[name], row[f"{name}_sd"] = mean_sd(differences)
            row[f"{name}_low"], row[f"{name}_high"] = t_interval(differences)
        row["interval"] = None if np.isnan(row["gain_low"]) else "seeds"
        whole = group[~group["resumed"].eq(True)]
        row["train_minutes"] = whole["train_seconds"].mean() / 60
        row |= {key: group[key].mean() for key in ("peak_memory_mb", "parameters", "extra_parameters")}
        rows.append(row)
    return pd.DataFrame(rows)


def with_intervals(table: pd.DataFrame, results: Path) -> pd.DataFrame:
    """The table with the bootstrap's intervals that the report has written; those of other figures are left out."""
    path = results / "table.csv"
    if not path.is_file():
        return table
    written = pd.read_csv(path).set_index("run").reindex(table["run"])
    if "interval" not in written:
        return table
    same = (
        written["interval"].isin(("images", "both"))
        & np.isclose(written["gain"], table.set_index("run")["gain"], atol=1e-3)
    ).array
    table = table.copy()
    for name in [name for name in table if name.endswith(("_low", "_high"))]:
        table[name] = table[name].mask(same, written[name].array)
    table["interval"] = table["interval"].mask(same, written["interval"].array)
    return table


def load_curves(results: Path, records: pd.DataFrame) -> pd.DataFrame:
    """The students' training curves in one long table, with their baselines; AP is NaN where it was not measured."""
    base = {run: baseline_of(records, run) for run in records["run"].unique()}
    parts = []
    for record in records[records["role"] != TEACHER].to_dict("records"):
        path = results / "curves" / f"{record['key']}.csv"
        try:
            curve = pd.read_csv(path)[["step", "loss", "AP"]]
        except FileNotFoundError:
            raise ReportError(f"{path} is missing") from None
        except (KeyError, ValueError) as error:
            raise ReportError(f"{path} is no curve with step, loss and AP: {error}") from None
        named = {key: record[key] for key in ("run", "seed", *METHOD, "pair")}
        parts.append(curve.assign(**named, baseline=base[record["run"]]))
    return pd.concat(parts, ignore_index=True)


def load_costs(results: Path, table: pd.DataFrame) -> pd.DataFrame:
    """The measured costs of the table's runs, with their gain; no row where no cost was measured.

    ``step_ratio`` and ``extra_mb`` are relative to the student alone.
    """
    path = results / "cost.csv"
    if not path.exists():
        return pd.DataFrame(columns=[*COST_COLUMNS, "gain"])
    try:
        costs = pd.read_csv(path)
        costs = costs[[*COST_COLUMNS, *(name for name in costs if name in (FIRST_STAGE, *COST_SPREAD))]]
    except (KeyError, ValueError) as error:
        raise ReportError(f"{path} is not what `python -m benchmark.cost` writes: {error}") from None
    known = [name for name in ("run", "gain", "role", "method_title", "method_place") if name in table]
    return costs.merge(table[known], on="run")
