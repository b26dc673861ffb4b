"""All experiments with what their committed records show: what the front page tells of each.

Records may lack here, unlike in a report: an experiment under way shows the runs that it has, and says what it lacks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from pydantic import StrictBool, StrictStr
from pydantic.dataclasses import dataclass as checked

from benchmark.evidence.intervals import with_bootstrap
from benchmark.evidence.lengths import whole
from benchmark.evidence.present import asked_for, other_settings
from benchmark.evidence.record import Record, ReportError, read_yaml
from benchmark.evidence.records import aggregate, frame, with_intervals
from benchmark.experiment.datasets import STRICT
from benchmark.experiment.settings import load

#: the default experiment, whose folder is the repository's root
ROOT_NAME = "."


@checked(frozen=True, config=STRICT)
class Title:
    """What an experiment is called, and what it is in one sentence."""

    title: StrictStr
    sentence: StrictStr = ""
    #: whether its results are committed; the page tells of no others, so that it is the same on every machine
    kept: StrictBool = True


@dataclass(frozen=True)
class Experiment:
    """An experiment and what is there of it."""

    name: str
    title: Title
    #: of params.yaml and results
    folder: Path
    #: how many records its ``params.yaml`` asks for; 0 where there is none
    expected: int = 0
    #: the records there are; None without any
    records: pd.DataFrame | None = None
    #: one row a run (:func:`benchmark.evidence.records.aggregate`), with intervals
    table: pd.DataFrame | None = None
    #: record -> how it is not what ``params.yaml`` asks for
    stale: Mapping[str, list[str]] = field(default_factory=dict)
    #: records that others made (``python -m benchmark.submit``), by who they are
    others: Mapping[str, list[Record]] = field(default_factory=dict)
    #: why its records cannot be read
    broken: str | None = None

    @property
    def whole(self) -> pd.DataFrame | None:
        """The table without the runs that are shorter trainings of others."""
        return None if self.table is None else whole(self.table, self.records)

    @property
    def results(self) -> Path:
        return self.folder / "results"

    @property
    def key_regions(self) -> Path | None:
        """Folder of what was measured of key regions; None where nothing was."""
        folder = self.results / "key_regions"
        return folder if any(folder.glob("*.json")) else None


def load_titles(path: Path) -> dict[str, Title]:
    """The entries of ``titles.yaml``; :class:`ReportError` naming the one that is wrong."""
    return read_yaml(path, dict[str, Title] | None) or {}


def run_notes(params: Path) -> dict[str, str]:
    """What ``params.yaml`` says of runs whose names do not explain themselves."""
    return {name: run.note for name, run in load(params).runs.items() if run.note}


def load_others(results: Path) -> dict[str, list[Record]]:
    """The records that were taken in from others, by who they are."""
    found = {}
    for path in sorted((results / "others").glob("*/runs/*.json")):
        found.setdefault(path.parents[1].name, []).append(Record.read(path))
    return found


def load_experiment(name: str, title: Title, folder: Path) -> Experiment:
    """An experiment with the records that are there."""
    params, results = folder / "params.yaml", folder / "results"
    if not params.is_file():
        return Experiment(name, title, folder)
    there, lacking = asked_for(results, params)
    expected = len(there) + len(lacking)
    try:
        others = load_others(results)
        if not there:
            return Experiment(name, title, folder, expected, others=others)
        read = [(job, Record.read(path)) for job, path in there]
        records = frame([record for _, record in read])
        # what is resampled counts, not what a report has once written
        table = with_bootstrap(records, with_intervals(aggregate(records), results), results)
    except ReportError as error:
        return Experiment(name, title, folder, expected, broken=str(error))
    stale = {record.key: found for job, record in read if (found := other_settings(record, job))}
    return Experiment(name, title, folder, expected, records, table, stale, others)


def load_experiments(folder: Path) -> list[Experiment]:
    """Every experiment whose results are kept: ``folder``'s titles in their order, then other subfolders.

    Args:
        folder: holds ``titles.yaml`` and a subfolder an experiment; the default experiment is its parent.

    Raises:
        ReportError: the titles or an experiment's settings are wrong, or a title names no folder.
    """
    titles = load_titles(folder / "titles.yaml")
    if lost := [name for name in titles if not (folder / name).is_dir()]:
        raise ReportError(f"{folder / 'titles.yaml'}: there is no experiment '{lost[0]}'")
    others = sorted(
        path.name
        for path in folder.iterdir()
        if path.name not in titles and ((path / "params.yaml").is_file() or (path / "results").is_dir())
    )
    titles |= {name: Title(name) for name in others}
    return [
        load_experiment(name, title, folder.parent if name == ROOT_NAME else folder / name)
        for name, title in titles.items()
        if title.kept
    ]
