"""Where things lie."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmark.experiment.settings import Job

#: The repository: config files and pinned data are found from here, whatever experiment's folder a stage runs in.
ROOT = Path(__file__).resolve().parents[2]
WORK = Path("work")
DATASETS = WORK / "dataset"
#: what code each stage goes through, by stage
CLOSURES = WORK / "closures"
#: what each training depends on, without and with its teacher
PLAN = WORK / "plan"
MATCH = WORK / "match"
TEACHERS = WORK / "teachers"
#: accuracy of each teacher, by pair
TEACHER_METRICS = WORK / "teacher_metrics"
RUNS = WORK / "runs"
#: what a killed training goes on from
CHECKPOINTS = WORK / "checkpoints"


def folder_of(job: Job) -> Path:
    """Where a training leaves its weights."""
    return TEACHERS / job.pair_name if job.run is None else RUNS / job.label


def link_into(home: Path, *parts: Path) -> None:
    """Show ``parts``, relative to the current folder, at the same places below ``home``; what stands there stays."""
    for part in parts:
        link = home / part
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.exists():
            link.symlink_to(part.resolve())


def write_entries(out: Path, entries: dict[str, dict]) -> None:
    """One JSON file an entry, equal bytes for equal content; files of entries that are gone go too."""
    out.mkdir(parents=True, exist_ok=True)
    for stale in set(out.glob("*.json")) - {out / f"{name}.json" for name in entries}:
        stale.unlink()
    for name, content in entries.items():
        (out / f"{name}.json").write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
