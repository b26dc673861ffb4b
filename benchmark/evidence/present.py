"""What of an experiment is there for its report, and in words what is not.

An experiment under way has a page, too, as has one of which only the committed records are there; what lacks is told
on the page and by the command, as a table that silently lacks a run is worse than none.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from benchmark.evidence.record import TEACHER, Record, ReportError
from benchmark.evidence.records import METHOD, expected_jobs, frame, load_curves
from benchmark.experiment.settings import Job

#: columns of the curves of students, where none has any
CURVES = ("step", "loss", "AP", "run", "seed", *METHOD, "pair", "baseline")


def asked_for(results: Path, params: Path) -> tuple[list[tuple[Job, Path]], list[Job]]:
    """The trainings of ``params.yaml`` that have a record, with its file, and those that have none."""
    asked = [(job, results / "runs" / f"{job.label}.json") for job in expected_jobs(params)]
    return [one for one in asked if one[1].is_file()], [job for job, path in asked if not path.is_file()]


def other_settings(record: Record, job: Job) -> list[str]:
    """How a record is not what its job asks for, setting by setting; what a job leaves open counts for nothing."""
    run = job.run
    asked = {"pair": job.pair_name, "dataset": job.pair.dataset, "config": job.detector.config, "options": job.options}
    asked |= {"method": "none", "inherit": "none"} if run is None else {"method": run.method, "inherit": run.inherit}
    if job.detector.iterations is not None:
        asked["iterations"] = job.detector.iterations
    found = {name: getattr(record, name) for name in asked}
    if run is not None and run.method == record.method:
        asked |= run.settings
        found |= {name: record.settings.get(name) for name in run.settings}
    # as JSON, in which the record was: there are no tuples
    now = {name: json.loads(json.dumps(value)) for name, value in asked.items()}
    return [f"{name} {found[name]}, now {value}" for name, value in now.items() if value != found[name]]


def records_there(results: Path, params: Path) -> tuple[pd.DataFrame, str]:
    """The records that there are of those that ``params.yaml`` asks for, and sentences of what was not run yet or with
    other settings.

    Returns:
        :func:`benchmark.evidence.records.frame` of them, and the sentences; empty where none lacks.

    Raises:
        ReportError: there is none at all, or one is broken.
    """
    there, lacking = asked_for(results, params)
    if not there:
        first = results / "runs" / f"{lacking[0].label}.json"
        raise ReportError(f"{first} is missing, as are all other records; `dvc repro` trains the runs")
    read = [(job, Record.read(path)) for job, path in there]
    stale = {record.key: other for job, record in read if (other := other_settings(record, job))}
    found = [record for _, record in read if record.key not in stale]
    if not found:
        key, other = next(iter(stale.items()))
        raise ReportError(f"{key} was trained with {'; '.join(other)}, as were all; `dvc repro` trains anew")
    told = []
    if lacking:
        begun = {record.run for record in found}
        names = dict.fromkeys(job.label if job.name in begun else job.name for job in lacking)
        asked = len(there) + len(lacking)
        told.append(f"Not run yet ({len(lacking)} of {asked} trainings): {', '.join(names)}.")
    if stale:
        names = ", ".join(f"{key} ({'; '.join(other)})" for key, other in stale.items())
        told.append(f"Trained with other settings than params.yaml asks for now, and left out: {names}.")
    return frame(found), " ".join(told)


def curves_there(results: Path, records: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, str]:
    """The records of the students that have a curve, these curves, and a sentence of those without any.

    The curves are those of :func:`benchmark.evidence.records.load_curves`.
    """
    students = records[records["role"] != TEACHER]
    there = students["key"].map(lambda key: (results / "curves" / f"{key}.csv").is_file()).astype(bool)
    followed, lacking = students[there], students.loc[~there, "key"]
    curves = load_curves(results, followed) if len(followed) else pd.DataFrame(columns=list(CURVES))
    return followed, curves, f"Without a curve: {', '.join(lacking)}." if len(lacking) else ""


def can_be_pictured(records: pd.DataFrame, keys: Sequence[str], work: Path) -> bool:
    """Whether the prepared data set and the detections of all of these records are there, to be drawn."""
    folders = {work / "dataset" / name / "dataset.json" for name in records.loc[records["key"].isin(keys), "dataset"]}
    return all(path.is_file() for path in (*folders, *(work / "evaluate" / key / "detections.json" for key in keys)))
