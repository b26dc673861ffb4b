"""Stage `plan`: write for each training of a pair what its result depends on.

``python -m benchmark.plan PAIR`` writes ``teacher-<pair>.json`` and ``<run>.json`` of its runs to ``work/plan/<pair>``:
library versions, a digest of the whole config, of the data and of each module of code that the training goes through.
Stages depend on such a file and not on folders, so that editing one method re-trains its runs only, adding a data set
re-trains nobody, and neither does a docstring or a comment (digests are of the syntax tree without docstrings).
Without PAIR: all pairs, after what the stage `check` does.

``--dry-run`` writes nothing there: it says what the experiment would take (operations, steps, GPU hours at a
throughput, disk, money) and what is missing; it needs neither data nor a GPU.
"""

from __future__ import annotations

if __name__ == "__main__":
    # help and usage errors come before the imports that take seconds
    from benchmark.experiment.cli import answer_early

    answer_early("plan")

import hashlib
from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mmdet.registry import MODELS, TASK_UTILS
from mmengine.config import Config

import pgd.plugin  # noqa: F401  registers with mmdet
from benchmark.data.manifest import file_state
from benchmark.experiment.cli import command_parser, run_cli
from benchmark.experiment.config import GROUPED, DatasetInfo, detector_config, in_groups, training_digest
from benchmark.experiment.digest import BESIDE_TRAINING, PACKAGES, closure, library_versions
from benchmark.experiment.pretrained import remote_of
from benchmark.experiment.quiet import quiet
from benchmark.experiment.settings import Job, Params, Run, SettingsError, load
from benchmark.experiment.soundness import check_models
from benchmark.experiment.workspace import HERE, Workspace, write_entries
from benchmark.match import LEARNER, TOKENS
from benchmark.training.run import DYNAMICS
from pgd.dense import reader_of, served_heads
from pgd.methods.base import method_class, settings_of

#: the module that takes the place of a training where the teacher's weights are given
GIVEN = "benchmark.training.given"


def parts_of(model: Any) -> set[type]:
    """The classes that a model's config names: detector, backbone, head, losses, assigners."""
    if isinstance(model, list | tuple):
        return set().union(*map(parts_of, model))
    if not isinstance(model, dict):
        return set()
    named = [registry.get(model["type"]) for registry in (MODELS, TASK_UTILS) if isinstance(model.get("type"), str)]
    return {cls for cls in named if isinstance(cls, type)}.union(*map(parts_of, model.values()))


def sources(parts: set[type], run: Run | None, grouped: bool = False) -> dict[str, str]:
    """Digests of the modules that a training goes through, by module name; ``grouped``: as are its batches.

    Followed by their imports from the training, the detectors' parts, the readers of their heads and the method's file,
    so that a new head or method, which nothing imports by name, changes nothing for the others.
    """
    roots = {"benchmark.training.run"} | {cls.__module__ for cls in parts}
    for part in parts:
        if issubclass(part, tuple(served_heads())):
            roots |= {cls.__module__ for cls in reader_of.dispatch(part).__mro__}
    if grouped:
        roots.add(GROUPED)
    if run is not None and run.needs_teacher:
        roots.add(DYNAMICS)
    if run is not None and run.method != "none":
        roots.add("benchmark.training.stored")
        roots |= {cls.__module__ for cls in method_class(run.method).__mro__}
        if TOKENS in settings_of(run.method):
            roots.add(LEARNER)
    return closure({name for name in roots if name.split(".")[0] in PACKAGES}, BESIDE_TRAINING)


def check_pretrained(cfg: Config) -> str | None:
    """Digest of the backbone's weights where the config names a local file, which must be there; an address itself."""
    init = cfg.model.backbone.get("init_cfg") or {}
    source = init.get("checkpoint")
    if source is None:
        return None
    if "://" in source:
        # that it can be fetched and checked shows before anything trains
        remote_of(source)
        return source
    path = Path(source)
    if not path.is_file():
        raise SettingsError(f"{path}: pretrained backbone missing; `dvc pull data` fetches it")
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def check_given(job: Job) -> str:
    """Digest of the checkpoint that is given for a teacher; of an address, the one it should have or itself."""
    teacher, key = job.pair.teacher, f"pairs.{job.pair_name}.teacher"
    if teacher.is_address:
        return teacher.sha256 or teacher.checkpoint
    found = file_state(Path(teacher.checkpoint))
    if found is None:
        raise SettingsError(f"{key}.checkpoint: {teacher.checkpoint} is no file (paths start at params.yaml)")
    if teacher.sha256 not in (None, found):
        raise SettingsError(f"{key}.sha256: {teacher.checkpoint} has {found}; give the right file or correct the key")
    return found


def entry(job: Job, space: Workspace = HERE) -> dict:
    """What the result of one training depends on, besides its seed and the teacher's weights."""
    cfg = detector_config(job.detector, job.options)
    data = DatasetInfo.load(job.pair.dataset, space)
    taught = job.run is not None and job.run.needs_teacher
    parts = parts_of(cfg.model)
    if taught:
        parts |= parts_of(detector_config(job.pair.teacher).model)
    given = job.run is None and job.pair.teacher.checkpoint is not None
    return {
        "data": data.digest,
        # A change of the gate leaves the teacher as it is, but a student must be checked against it.
        "teacher_min_ap": job.pair.teacher.min_ap if taught else None,
        # how the teacher's features are kept, where that changes them
        "features": job.pair.teacher.features if taught and job.pair.teacher.features == "float16" else None,
        "pretrained": check_pretrained(cfg),
        # of all settings, as far as they matter to this training
        "config": training_digest(job, data),
        "seed": job.seed if job.run is None else None,
        "code": sources(parts, job.run, in_groups(cfg)) | (closure({GIVEN}, BESIDE_TRAINING) if given else {}),
        "libraries": library_versions(),
        **({"checkpoint": check_given(job)} if given else {}),
    }


def plan(params: Params, space: Workspace = HERE, pairs: Iterable[str] | None = None) -> None:
    """Write one file a training of these pairs, or of all, once everything is known to be sound.

    Equal content leaves DVC's hashes as they are.
    """
    if pairs is None:
        check_models(params)
    for pair in params.pairs if pairs is None else pairs:
        students = [params.student(name) for name, run in params.runs.items() if run.pair == pair]
        entries = {job.name: entry(job, space) for job in (params.teacher(pair), *students)}
        write_entries(space.plan(pair), entries)


def dry_run(params: Params, args: Namespace) -> None:
    """Say what the experiment would take."""
    from benchmark.experiment.budget import budget
    from benchmark.experiment.budget_table import markdown, show

    quiet()
    check_models(params)
    found = budget(params, args.throughput)
    show(found, args.gpus, args.throughput, args.price)
    if args.out:
        args.out.write_text(markdown(found, args.gpus, args.throughput, args.price), encoding="utf-8")


def main() -> None:
    args = command_parser("plan").parse_args()
    params = load(args.params)
    try:
        dry_run(params, args) if args.dry_run else plan(params, pairs=[args.pair] if args.pair else None)
    except SettingsError as error:
        raise SettingsError(f"{args.params}: {error}") from None


if __name__ == "__main__":
    run_cli(main, SettingsError)
