"""Stage `match`: bring together what the students of a run depend on, its plan and its teacher.

``python -m benchmark.match RUN`` writes ``work/match/<run>.json``: the run's entry of ``work/plan`` and, where it needs
a teacher, the digest of that one's weights and its AP. The stages of a run depend on this file: a teacher trained anew
re-trains its own students and nobody else's. Without RUN: all runs.

Where a method teaches behind masks that are learned on the teacher first (MasKD), they are learned here, once for all
its students, and their digest stands in the file, too.
"""

from __future__ import annotations

if __name__ == "__main__":
    # help and usage errors come before the imports that take seconds
    from benchmark.experiment.cli import answer_early

    answer_early("match")

import importlib
import json
import math
from collections.abc import Iterable
from pathlib import Path

from benchmark.data.faults import DataError
from benchmark.experiment.cli import command_parser, run_cli
from benchmark.experiment.quiet import quiet
from benchmark.experiment.settings import Job, Params, SettingsError, load
from benchmark.experiment.workspace import HERE, Workspace, file_digest, write_entry
from pgd.checkpoint import CheckpointError, load_state

#: Learns masks on a teacher. It is in the plans of the runs that need it; what it imports is nothing to all the others.
LEARNER = "benchmark.training.masks"
#: the setting of a method that takes their file
TOKENS = "tokens"


def teacher_of(pair: str, space: Workspace) -> dict:
    """Digest and AP of a pair's trained teacher."""
    weights, record = space.teacher(pair) / "weights.pth", space.teacher_metrics(pair)
    load_state(weights)
    ap = json.loads(record.read_text(encoding="utf-8"))["AP"] if record.is_file() else math.nan
    return {"sha256": file_digest(weights), "AP": ap}


def teacher_weights(job: Job, space: Workspace = HERE) -> Path:
    """The weights that a run was matched with, once they are known to be good enough."""
    teacher = json.loads(basis(job, space).read_text(encoding="utf-8"))["teacher"]
    weights, bound = space.teacher(job.pair_name) / "weights.pth", job.pair.teacher.min_ap
    if not teacher["AP"] >= bound:
        raise SettingsError(
            f"{weights}: the teacher has {teacher['AP']:.1f} AP, below pairs.{job.pair_name}.teacher.min_ap = {bound}; "
            "train it longer (iterations) or lower the bound in params.yaml"
        )
    load_state(weights)
    if file_digest(weights) != teacher["sha256"]:
        raise CheckpointError(
            f"{weights}: not the teacher that {basis(job, space)} names; run `dvc repro match@{job.name}`"
        )
    return weights


def masks_of(job: Job, space: Workspace = HERE) -> Path | None:
    """The file of masks that a run was matched with; None where its method has none."""
    wanted = json.loads(basis(job, space).read_text(encoding="utf-8")).get("masks")
    path = space.masks(job.pair_name) / "masks.pth"
    if wanted is None:
        return None
    if not path.is_file() or file_digest(path) != wanted:
        problem = f"not the masks that {basis(job, space)} names" if path.is_file() else "not there"
        raise CheckpointError(
            f"{path}: {problem}; run `python -m benchmark.match {job.name}`, which learns them on the teacher"
        )
    return path


def basis(job: Job, space: Workspace = HERE) -> Path:
    """The file that says what a training depends on."""
    path, stage = (
        (space.planned(job), f"plan@{job.pair_name}")
        if job.run is None
        else (space.matched(job.name), f"match@{job.name}")
    )
    if not path.is_file():
        raise SettingsError(f"{path}: not there; run `dvc repro {stage}`")
    return path


def entry(job: Job, space: Workspace) -> dict:
    """What the students of a run depend on."""
    plan = json.loads(space.planned(job).read_text(encoding="utf-8"))
    found = {"plan": plan, "teacher": teacher_of(job.pair_name, space) if job.run.needs_teacher else None}
    if LEARNER in plan["code"]:
        learner = importlib.import_module(LEARNER)
        found["masks"] = file_digest(learner.learned(job, space))
    return found


def match(params: Params, space: Workspace = HERE, runs: Iterable[str] | None = None) -> None:
    """Write one file a run; of all runs by default."""
    for job in map(params.student, params.runs if runs is None else runs):
        write_entry(space.matched(job.name), entry(job, space))


def main() -> None:
    args = command_parser("match").parse_args()
    quiet()
    match(load(args.params), runs=args.runs or None)


if __name__ == "__main__":
    run_cli(main, SettingsError, CheckpointError, DataError, FloatingPointError)
