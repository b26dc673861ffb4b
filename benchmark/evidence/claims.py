"""Claims of the paper, what was measured, and the verdict: ``experiments/claims.yaml`` against committed results.

A claim holds one or more measurements, each a difference in percentage points with an interval:

- ``better`` and ``worse``: two runs of an experiment, paired by seed, intervals over seeds and images;
- ``share_of_gap``: what a run closes of the gap between a student and its teacher, in percent;
- ``regions``: the accuracy that a detector keeps with its best positions, against all of them or against a control.

The verdict follows from the interval alone (docs/protocol.md): **reproduced** where it lies above ``bound``,
**contradicted** where it lies below, **undecided** where it holds it. Without an interval over seeds there is none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pandas as pd
from annotated_types import MinLen
from pydantic import StrictBool, StrictStr
from pydantic.dataclasses import dataclass

from benchmark.evidence.intervals import load_bootstrap
from benchmark.evidence.present import other_settings
from benchmark.evidence.record import TEACHER, Record, ReportError, read_yaml
from benchmark.evidence.records import FOOTING, expected_jobs
from benchmark.evidence.stats import over_seeds, percentile_interval
from benchmark.experiment.datasets import STRICT, Number
from benchmark.experiment.settings import Job

REPRODUCED, CONTRADICTED, UNDECIDED = "reproduced", "contradicted", "undecided"
NOT_MEASURED, NOT_TESTABLE, ONE_SEED = "not measured yet", "not testable here", "one seed: no verdict"
#: What runs of one difference share; a claim may be about inheriting, or about an option.
SHARED = tuple(key for key in FOOTING if key not in ("inherit", "options"))


@dataclass(frozen=True, config=STRICT)
class Regions:
    """A difference that `key_regions` measured: the best positions of a box against ``than``."""

    detector: StrictStr
    mode: Literal["predictions", "features"]
    percent: Number
    #: ``all`` positions, or a control (``random``, ``central``, ...) that keeps as many
    than: StrictStr


@dataclass(frozen=True, config=STRICT)
class Measurement:
    """What is compared; one of ``better``, ``share_of_gap`` and ``regions``."""

    #: folder below ``experiments``
    experiment: StrictStr
    #: what a reader calls the place (``GFL, minicoco``)
    where: StrictStr
    better: StrictStr | None = None
    worse: StrictStr | None = None
    #: a run; the gap is that between ``worse`` and its teacher
    share_of_gap: StrictStr | None = None
    regions: Regions | None = None
    metric: Literal["AP", "MR"] = "AP"
    #: what the difference must exceed, percentage points (percent of a gap)
    bound: Number = 0.0
    #: as the source prints it
    published: StrictStr | None = None

    def __post_init__(self) -> None:
        asked = [name for name in ("better", "share_of_gap", "regions") if getattr(self, name) is not None]
        if len(asked) != 1:
            raise ValueError("give one of better, share_of_gap and regions")
        if self.regions is None and self.worse is None:
            raise ValueError("worse: missing, the run to compare with")


@dataclass(frozen=True, config=STRICT)
class Claim:
    """A sentence of the paper (or of those who use it), and how it is tested."""

    claim: StrictStr
    #: where it is said
    source: StrictStr
    #: whether it is the paper's; others are questions of this suite
    paper: StrictBool = True
    measured: tuple[Measurement, ...] = ()
    #: why it cannot be tested here, and what that would take
    needs: StrictStr | None = None
    #: what a reader has to know of the measurement
    note: StrictStr = ""


class Missing(Exception):
    """A measurement whose records are not there."""


def load_claims(path: Path) -> dict[str, Claim]:
    """The claims of a file by their names; :class:`ReportError` naming the entry that is wrong."""
    return read_yaml(path, Annotated[dict[StrictStr, Claim], MinLen(1)])


def jobs_of(results: Path) -> dict[str, Job] | None:
    """The trainings that an experiment asks for, by the names of their records; None where nothing says what it asks
    for."""
    params = results.parent / "params.yaml"
    return {job.label: job for job in expected_jobs(params)} if params.is_file() else None


def seeds_of(results: Path, run: str, jobs: Mapping[str, Job] | None) -> list[int]:
    """The seeds that a run has records of; others than those of ``jobs``, where it is known what is asked for, do not
    count."""
    paths = (results / "runs").glob(f"{run}-*.json")
    found = [path.stem.removeprefix(f"{run}-") for path in paths if jobs is None or path.stem in jobs]
    return sorted(int(text) for text in found if text.isdecimal())


def _figures(results: Path, records: Sequence[Record], metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Of the records of a run: [S] figures, and [S, B] those on resamples of the images."""
    values = np.array([record.accuracy[metric] for record in records], dtype=float)
    resampled = load_bootstrap(results, [record.key for record in records], metric)
    if resampled is None:
        raise Missing(f"{results}/bootstrap lacks {records[0].run}")
    return values, resampled


def current(results: Path, keys: Sequence[str], jobs: Mapping[str, Job] | None) -> list[Record]:
    """These records, if they are of the settings that ``jobs`` ask for now; :class:`Missing` if one is not, or is not
    there."""
    paths = {key: results / "runs" / f"{key}.json" for key in keys}
    if lacking := [key for key, path in paths.items() if not path.is_file()]:
        raise Missing(f"no record of {', '.join(lacking)}")
    records = [Record.read(path) for path in paths.values()]
    for record in records:
        if jobs is not None and record.key in jobs and (other := other_settings(record, jobs[record.key])):
            raise Missing(f"{record.key} was trained with {'; '.join(other)}")
    return records


def _shared_seeds(results: Path, *runs: str) -> list[list[Record]]:
    """The records of these runs with the seeds that all of them have, once they are known to be comparable."""
    jobs = jobs_of(results)
    seeds = [seeds_of(results, run, jobs) for run in runs]
    if lacking := [run for run, own in zip(runs, seeds, strict=True) if not own]:
        raise Missing(f"no record of {', '.join(lacking)}")
    records = current(results, [f"{run}-{seed}" for run, own in zip(runs, seeds, strict=True) for seed in own], jobs)
    first, *others = records
    for other in others:
        if wrong := [name for name in SHARED if getattr(first, name) != getattr(other, name)]:
            values = " and ".join(str(getattr(one, wrong[0])) for one in (first, other))
            raise ReportError(
                f"{results}: {first.key} and {other.key} cannot be compared: {wrong[0]} {values}; train one anew"
            )
    shared = set.intersection(*map(set, seeds))
    return [[record for record in records if record.run == run and record.seed in shared] for run in runs]


def gain(results: Path, better: str, worse: str, metric: str = "AP") -> tuple[float, np.ndarray, int]:
    """What a run has more than another: mean over shared seeds, [B] bootstrap values, and how many seeds.

    MR counts downwards: less is more.
    """
    records = _shared_seeds(results, better, worse)
    sign = -1.0 if metric == "MR" else 1.0
    (ours, ours_b), (other, other_b) = (_figures(results, own, metric) for own in records)
    return sign * float((ours - other).mean()), sign * over_seeds(ours_b - other_b), len(ours)


def share_of_gap(results: Path, run: str, student: str) -> tuple[float, np.ndarray, int]:
    """What a run closes of the gap between a student and their teacher, percent; as :func:`gain`.

    The teacher is one training: its luck is in no interval.
    """
    records = _shared_seeds(results, run, student)
    key = f"{TEACHER}-{records[0][0].pair}"
    (teacher,) = current(results, [key], jobs_of(results))
    top, top_b = teacher.accuracy["AP"], load_bootstrap(results, [key], "AP")
    if top_b is None:
        raise Missing(f"{results}/bootstrap lacks {key}")
    (taught, taught_b), (plain, plain_b) = (_figures(results, own, "AP") for own in records)
    closed, gap = over_seeds(taught_b - plain_b), over_seeds(top_b - plain_b)
    return 100 * float((taught - plain).mean() / (top - plain).mean()), 100 * closed / gap, len(taught)


def kept(results: Path, regions: Regions) -> tuple[float, float, float]:
    """What a detector has with its best positions beyond ``than``, and the interval over images; of several draws of a
    control the mean, and an interval that holds each draw's."""
    path = results / "key_regions" / f"{regions.detector}.csv"
    if not path.is_file():
        raise Missing(f"{path} is not there")
    table = pd.read_csv(path)
    selection = "top" if regions.than == "all" else regions.than
    column = "change" if regions.than == "all" else "behind_top"
    rows = table[
        (table["mode"] == regions.mode)
        & (table["selection"] == selection)
        & np.isclose(table["percent"], regions.percent)
    ]
    if rows.empty:
        raise Missing(f"{path} has no {regions.mode}, {selection} at {regions.percent:g}%")
    return rows[column].mean(), rows[f"{column}_low"].min(), rows[f"{column}_high"].max()


def decide(low: float, high: float, bound: float) -> str:
    """The verdict that an interval gives."""
    if low > bound:
        return REPRODUCED
    return CONTRADICTED if high < bound else UNDECIDED


def measure(one: Measurement, experiments: Path) -> dict:
    """Value, interval, seeds and verdict of a measurement."""
    results = experiments / one.experiment / "results"
    try:
        if one.regions is not None:
            value, low, high = kept(results, one.regions)
            return {"value": value, "low": low, "high": high, "seeds": None, "verdict": decide(low, high, one.bound)}
        if one.share_of_gap is not None:
            value, resampled, seeds = share_of_gap(results, one.share_of_gap, one.worse)
        else:
            value, resampled, seeds = gain(results, one.better, one.worse, one.metric)
    except Missing:
        return {"value": np.nan, "low": np.nan, "high": np.nan, "seeds": None, "verdict": NOT_MEASURED}
    low, high = percentile_interval(resampled)
    verdict = decide(low, high, one.bound) if seeds > 1 else ONE_SEED
    return {"value": value, "low": low, "high": high, "seeds": seeds, "verdict": verdict}


def verdicts(claims: dict[str, Claim], experiments: Path) -> pd.DataFrame:
    """One row a measurement, and one for a claim without any: ``name, claim, source, paper, where, published, unit,
    bound, value, low, high, seeds, verdict``; intervals hold 95%."""
    rows = []
    for name, claim in claims.items():
        said = {"name": name, "claim": claim.claim, "source": claim.source, "paper": claim.paper}
        for one in claim.measured:
            # the sign is that of what is better
            unit = "% of the gap" if one.share_of_gap else {"MR": "MR (fall)"}.get(one.metric, one.metric)
            place = {"where": one.where, "published": one.published, "unit": unit, "bound": one.bound}
            rows.append(said | place | measure(one, experiments))
        if not claim.measured:
            rows.append(said | {"verdict": NOT_TESTABLE if claim.needs else NOT_MEASURED})
    return pd.DataFrame(rows)


def telling(rows: pd.DataFrame) -> pd.Series | None:
    """Of a claim's measurements the one that speaks for it: the first decided one, else the first undecided one.

    Args:
        rows: of :func:`verdicts`, of one claim.
    """
    for verdicts_of in ((REPRODUCED, CONTRADICTED), (UNDECIDED,)):
        found = rows[rows["verdict"].isin(verdicts_of)]
        if len(found):
            return found.iloc[0]
    return None
