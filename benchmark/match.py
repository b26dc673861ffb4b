"""Stage `match`: bring together what each student depends on, its plan and its teacher.

``python -m benchmark.match`` writes ``work/match/<run>.json``: the run's entry of ``work/plan`` and, where it needs a
teacher, the digest of that one's weights and its AP. The stages of a run depend on this file: a teacher trained anew
re-trains its own students and nobody else's.
"""

from __future__ import annotations

if __name__ == "__main__":
    # help and usage errors come before the imports that take seconds
    from benchmark.experiment.cli import answer_early

    answer_early("match")

import hashlib
import json
import math
from pathlib import Path

from benchmark.experiment.cli import command_parser, run_cli
from benchmark.experiment.folders import MATCH, PLAN, TEACHER_METRICS, TEACHERS, write_entries
from benchmark.experiment.settings import Job, Params, SettingsError, load
from pgd.checkpoint import CheckpointError, load_state


def file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def teacher_of(pair: str) -> dict:
    """Digest and AP of a pair's trained teacher."""
    weights, record = TEACHERS / pair / "weights.pth", TEACHER_METRICS / f"{pair}.json"
    load_state(weights)
    ap = json.loads(record.read_text())["AP"] if record.is_file() else math.nan
    return {"weights": str(weights), "sha256": file_digest(weights), "AP": ap}


def teacher_weights(job: Job) -> Path:
    """The weights that a run was matched with, once they are known to be good enough."""
    teacher = json.loads(basis(job).read_text())["teacher"]
    weights, bound = Path(teacher["weights"]), job.pair.teacher.min_ap
    if not teacher["AP"] >= bound:
        raise SettingsError(
            f"{weights}: the teacher has {teacher['AP']:.1f} AP, below pairs.{job.pair_name}.teacher.min_ap = {bound}; "
            "train it longer (iterations) or lower the bound in params.yaml"
        )
    load_state(weights)
    if file_digest(weights) != teacher["sha256"]:
        raise CheckpointError(f"{weights}: not the teacher that {basis(job)} names; run `dvc repro match`")
    return weights


def basis(job: Job) -> Path:
    """The file that says what a training depends on."""
    path = PLAN / f"{job.name}.json" if job.run is None else MATCH / f"{job.name}.json"
    if not path.is_file():
        raise SettingsError(f"{path}: not there; run `dvc repro {path.parent.name}`")
    return path


def match(params: Params, out: Path = MATCH) -> None:
    """Write one file a run."""
    wanted = {run.pair for run in params.runs.values() if run.needs_teacher}
    teachers = {pair: teacher_of(pair) for pair in params.pairs if pair in wanted}
    entries = {}
    for name, run in params.runs.items():
        plan = json.loads((PLAN / f"{name}.json").read_text())
        entries[name] = {"plan": plan, "teacher": teachers[run.pair] if run.needs_teacher else None}
    write_entries(out, entries)


def main() -> None:
    match(load(command_parser("match").parse_args().params))


if __name__ == "__main__":
    run_cli(main, SettingsError, CheckpointError)
