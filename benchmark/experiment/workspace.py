"""Where an experiment's files lie."""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmark.experiment.settings import Job

#: The repository: config files and pinned data are found from here, whatever experiment a stage belongs to.
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Workspace:
    """The folder of an experiment, by default the current one, and what its stages leave in it.

    Trials train in a workspace of their own with the experiment's teachers and, unless they split them anew, its data
    sets: ``teachers_of`` and ``data_of`` name the folder that these are taken from.
    """

    root: Path = Path()
    teachers_of: Path | None = None
    data_of: Path | None = None

    @property
    def params(self) -> Path:
        """The settings."""
        return self.root / "params.yaml"

    @property
    def results(self) -> Path:
        """What is committed."""
        return self.root / "results"

    @property
    def work(self) -> Path:
        """What is not."""
        return self.root / "work"

    @property
    def data_root(self) -> Path:
        """What paths in a data set's description start from."""
        return self.data_of or self.root

    def dataset(self, name: str) -> Path:
        """What `prepare` found: a file in the data set's own folder."""
        return self.data_root / "work" / "dataset" / name / "dataset.json"

    def look(self, name: str) -> Path:
        """What a data set outside of this folder was when it was looked at last."""
        return self.data_root / "work" / "look" / f"{name}.json"

    @property
    def closures(self) -> Path:
        """What code each stage goes through, a file a stage."""
        return self.work / "closures"

    @property
    def checked(self) -> Path:
        """Says that all settings were found to be sound."""
        return self.work / "checked.json"

    def plan(self, pair: str) -> Path:
        """Folder of what each training of a pair depends on but for its teacher, a file a training."""
        return self.work / "plan" / pair

    def planned(self, job: Job) -> Path:
        """What a training depends on but for its teacher."""
        return self.plan(job.pair_name) / f"{job.name}.json"

    def matched(self, run: str) -> Path:
        """What the students of a run depend on, with their teacher."""
        return self.work / "match" / f"{run}.json"

    def teacher(self, pair: str) -> Path:
        """Folder of a pair's trained teacher."""
        return (self.teachers_of or self.root) / "work" / "teachers" / pair

    def teacher_metrics(self, pair: str) -> Path:
        """Accuracy of a pair's teacher."""
        return (self.teachers_of or self.root) / "work" / "teacher_metrics" / f"{pair}.json"

    def features(self, pair: str) -> Path:
        """Folder of what a pair's teacher sees in the training images, for whoever needs it first to fill."""
        return self.work / "features" / pair

    def masks(self, pair: str) -> Path:
        """Folder of what MasKD learns on a pair's teacher before it teaches."""
        return self.work / "masks" / pair

    def trained(self, job: Job) -> Path:
        """Folder in which a training leaves its weights."""
        return self.teacher(job.pair_name) if job.run is None else self.work / "runs" / job.label

    def checkpoints(self, job: Job) -> Path:
        """Folder that a killed training goes on from."""
        return self.work / "checkpoints" / job.label

    def watch(self, job: Job) -> Path:
        """Folder of the course of a training, for the tools that show it."""
        return self.work / "watch" / job.label

    def detections(self, job: Job) -> Path:
        """What a trained detector found on the validation images."""
        return self.work / "evaluate" / job.label / "detections.json"

    def record(self, job: Job) -> Path:
        """The record of an evaluated training."""
        return self.results / "runs" / f"{job.label}.json"

    def curve(self, job: Job) -> Path:
        """The course of a training."""
        return self.results / "curves" / f"{job.label}.csv"


#: the experiment that a command was started in
HERE = Workspace()


def file_digest(path: Path, kind: str = "sha256") -> str:
    """Checksum of a file in hexadecimal; ``kind`` as hashlib names it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Alone with a file or folder, whose lock lies beside it; others that ask wait."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def write_entries(out: Path, entries: dict[str, dict]) -> None:
    """One JSON file an entry, equal bytes for equal content; files of entries that are gone go too."""
    out.mkdir(parents=True, exist_ok=True)
    for stale in set(out.glob("*.json")) - {out / f"{name}.json" for name in entries}:
        stale.unlink()
    for name, content in entries.items():
        write_entry(out / f"{name}.json", content)


def write_entry(path: Path, content: dict) -> None:
    """A JSON file, equal bytes for equal content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
