"""How hard a method pulls: its loss by the detector's own, and how often gradients are clipped.

A table of gains mostly measures this where weights are far off: a term of three hundred times the detector's loss,
under a clip at a norm of ten, leaves next to nothing of what the labels say; one of a thousandth is not there. Read
from the logged steps (every tenth) of ``results/curves``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from benchmark.evidence.record import TEACHER, ReportError

#: A method's loss by the detector's, outside of which a run is flagged. The settings that searches here have found lie
#: between 0.03 and 30; a public log of FGD on COCO has about 3.5.
BAND = 0.01, 50.0
#: share of the steps from which on clipping is flagged: what is clipped then is the rule
OFTEN = 0.5
#: the last part of a training that counts as its end
END = 0.1


def _of(record: dict, results: Path) -> dict[str, float]:
    path = results / "curves" / f"{record['key']}.csv"
    try:
        curve = pd.read_csv(path).dropna(subset=["loss"])
        extra = curve[list(record["method_losses"])].sum(axis=1)
        own = curve["loss"] - extra
    except FileNotFoundError:
        raise ReportError(f"{path} is missing") from None
    except (KeyError, ValueError) as error:
        raise ReportError(f"{path} is no curve of {record['key']}: {error}") from None
    ratio = (extra / own).to_numpy()
    last = ratio[-max(1, round(END * len(ratio))) :]
    limit = record["clip_grad"]
    clipped = np.nan
    if "grad_norm" in curve and limit is not None and not pd.isna(limit):
        clipped = float((curve["grad_norm"].dropna() > limit).mean())
    return {"start": ratio[0], "end": float(np.median(last)), "clipped": clipped}


def pull(records: pd.DataFrame, results: Path) -> pd.DataFrame:
    """One row a run: means over its seeds of the ratio at the first logged step and at the end, and clipped steps.

    Args:
        records: of :func:`benchmark.evidence.records.load_records`.
        results: folder of the curves.

    Returns:
        ``run``, ``method_title``, ``start`` and ``end`` (0 without a method), ``clipped`` (a share; NaN where nothing
        is clipped or was logged) and ``flag``, a few words where a run leaves :data:`BAND` or is clipped :data:`OFTEN`.
    """
    rows = []
    for run, own in records[records["role"] != TEACHER].groupby("run", sort=False):
        parts = pd.DataFrame(_of(record, results) for record in own.to_dict("records")).mean()
        rows.append({"run": run, "method_title": own["method_title"].iloc[0], **parts, "flag": flag(**parts)})
    return pd.DataFrame(rows, columns=["run", "method_title", "start", "end", "clipped", "flag"])


def flag(start: float, end: float, clipped: float) -> str:
    """What is to be said of a run: nothing, or why its row says little of the method."""
    low, high = BAND
    words = []
    if max(start, end) > high:
        words.append("outweighs the labels")
    if 0 < max(start, end) < low:
        words.append("hardly there")
    if clipped >= OFTEN:
        words.append("clipped most of the time")
    return ", ".join(words)
