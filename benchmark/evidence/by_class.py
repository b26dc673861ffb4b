"""What each method gains on which class, of the records that hold AP by class."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from benchmark.evidence.record import CLASS
from benchmark.evidence.records import paired


@dataclass(frozen=True)
class ByClass:
    """AP by class of a run without a method, and what runs on the same footing gain over it."""

    baseline: str
    #: AP of the baseline by class, mean over seeds
    plain: pd.Series
    #: a row a class that has objects, a column a run, the highest gain in AP first
    gains: pd.DataFrame


def by_class(records: pd.DataFrame, table: pd.DataFrame) -> list[ByClass]:
    """A table a baseline, where it and runs compared with it have AP by class.

    Args:
        records: of :func:`benchmark.evidence.records.load_records`.
        table: :func:`benchmark.evidence.records.aggregate` of them.
    """
    found = []
    compared = table[table["gain"].notna()].sort_values("gain", ascending=False, kind="stable")
    for baseline in dict.fromkeys(compared["baseline"]):
        plain = records.loc[records["run"] == baseline, [name for name in records if name.startswith(CLASS)]]
        # other data sets have other classes, and a class without an object has no AP
        classes = plain.columns[plain.notna().any()]
        runs = compared.loc[compared["baseline"] == baseline, "run"]
        gains = pd.DataFrame(
            {run: [paired(records, run, baseline, name).mean() for name in classes] for run in runs},
            index=[name.removeprefix(CLASS) for name in classes],
        ).dropna(axis="columns", how="all")
        if len(gains.columns):
            means = plain[classes].astype(float).mean().rename(lambda name: name.removeprefix(CLASS))
            found.append(ByClass(baseline, means, gains))
    return found
