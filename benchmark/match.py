"""Stage `match`: bring together what each student depends on, its plan and its teacher.

``python -m benchmark.match`` writes ``work/match/<run>.json``: the run's entry of ``work/plan`` and, where it needs a
teacher, the digest of that one's weights and its AP. The stages of a run depend on this file: a teacher trained anew
re-trains its own students and nobody else's.

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
from pathlib import Path

from benchmark.data.faults import DataError
from benchmark.experiment.cli import command_parser, run_cli
from benchmark.experiment.quiet import quiet
from benchmark.experiment.settings import Job, Params, SettingsError, load
from benchmark.experiment.workspace import HERE, Workspace, file_digest, write_entries
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
        raise CheckpointError(f"{weights}: not the teacher that {basis(job, space)} names; run `dvc repro match`")
    return weights


def masks_of(job: Job, space: Workspace = HERE) -> Path | None:
    """The file of masks that a run was matched with; None where its method has none."""
    wanted = json.loads(basis(job, space).read_text(encoding="utf-8")).get("masks")
    path = space.masks(job.pair_name) / "masks.pth"
    if wanted is None:
        return None
    if not path.is_file() or file_digest(path) != wanted:
        problem = f"not the masks that {basis(job, space)} names" if path.is_file() else "not there"
        raise CheckpointError(f"{path}: {problem}; run `python -m benchmark.match`, which learns them on the teacher")
    return path


def basis(job: Job, space: Workspace = HERE) -> Path:
    """The file that says what a training depends on."""
    path = (space.plan if job.run is None else space.match) / f"{job.name}.json"
    if not path.is_file():
        raise SettingsError(f"{path}: not there; run `dvc repro {path.parent.name}`")
    return path


def match(params: Params, space: Workspace = HERE) -> None:
    """Write one file a run."""
    wanted = {run.pair for run in params.runs.values() if run.needs_teacher}
    teachers = {pair: teacher_of(pair, space) for pair in params.pairs if pair in wanted}
    entries = {}
    for name, run in params.runs.items():
        plan = json.loads((space.plan / f"{name}.json").read_text(encoding="utf-8"))
        entries[name] = {"plan": plan, "teacher": teachers[run.pair] if run.needs_teacher else None}
        if LEARNER in plan["code"]:
            learner = importlib.import_module(LEARNER)
            entries[name]["masks"] = file_digest(learner.learned(params.student(name), space))
    write_entries(space.match, entries)


def main() -> None:
    args = command_parser("match").parse_args()
    quiet()
    match(load(args.params))


if __name__ == "__main__":
    run_cli(main, SettingsError, CheckpointError, DataError, FloatingPointError)
