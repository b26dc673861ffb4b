"""The same small budget for every method: eight trials, short runs, a held-out part of the training set.

``python -m benchmark.tune fitnet fgd ld pgd`` splits the training images of a pair's data set, trains its teacher on
85% of them (no trial may learn from one that has seen the others) and, for each method, eight short students, evaluates
these on the other 15% (never on val) and adds a row each to ``results/tuning.csv``. What is there already is not
trained again. The winners go into params.yaml by hand. The eight are the same multiples of the published weight,
carried over to the mini set by :mod:`pgd.scaling`, for every method; where its paper tunes another setting too, every
other trial takes that one's :data:`SECOND` value (docs/protocol.md). ``--trials FILE`` runs what the file names
instead, on the same footing (``experiments/trials.yaml``, to ``trials.csv``).
"""

from __future__ import annotations

if __name__ == "__main__":
    # help and usage errors come before the imports that take seconds
    from benchmark.experiment.cli import answer_early

    answer_early("tune")

import fcntl
import hashlib
import json
import os
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, replace
from multiprocessing import get_context
from pathlib import Path

import pandas as pd
import yaml

from benchmark.evaluate import evaluate
from benchmark.evidence.record import Record
from benchmark.experiment.cli import command_parser, run_cli
from benchmark.experiment.config import MINI, DatasetInfo, detector_config
from benchmark.experiment.names import unknown
from benchmark.experiment.quiet import quiet
from benchmark.experiment.settings import Job, Params, Run, SettingsError, load, parse
from benchmark.experiment.workspace import HERE, Workspace, locked
from benchmark.match import basis, match
from benchmark.plan import plan
from benchmark.train import train
from pgd.checkpoint import CheckpointError, written
from pgd.methods.base import METHODS, method_class
from pgd.scaling import published_settings

HELD_OUT = 0.15
#: Multiples of a method's scaled weight that are tried: four decades, three of them below it (docs/protocol.md).
FACTORS = (0.001, 0.0037, 0.014, 0.052, 0.19, 0.72, 2.7, 10.0)
#: A trial that agrees with one on these is not trained again, if its ``basis`` is the same.
SAME = ("pair", "trial", "settings", "iterations", "seed")
#: What every other trial has instead of the published value, where a paper tunes more than a weight.
SECOND = {"pgd": {"temperature": 8.0}, "fgd": {"temperature": 5.0}, "ld": {"temperature_ld": 3.0}}


def split_train(data: DatasetInfo, folder: Path) -> DatasetInfo:
    """A data set whose train and val are parts of ``data``'s train."""
    content = json.loads(Path(data.train_annotations).read_text(encoding="utf-8"))
    images = content["images"]
    cut = round(len(images) * (1 - HELD_OUT))
    paths = {}
    for name, part in (("train", images[:cut]), ("val", images[cut:])):
        ids = {i["id"] for i in part}
        kept = [a for a in content["annotations"] if a["image_id"] in ids]
        paths[name] = folder / f"{name}.json"
        paths[name].parent.mkdir(parents=True, exist_ok=True)
        paths[name].write_text(json.dumps({**content, "images": part, "annotations": kept}), encoding="utf-8")
    return replace(
        data,
        name=f"{data.name} (held out)",
        train_annotations=str(paths["train"]),
        val_annotations=str(paths["val"]),
        val_images=data.train_images,
        val_odgt=data.val_odgt and str(_held_out_people(data, images[cut:], folder)),
    )


def _held_out_people(data: DatasetInfo, images: list[dict], folder: Path) -> Path:
    """CrowdHuman's lines of these images; an image's ID is the stem of its name."""
    ids = {Path(image["file_name"]).stem for image in images}
    lines = Path(data.val_odgt).with_name("annotation_train.odgt").read_text(encoding="utf-8").splitlines()
    path = folder / "annotation_val.odgt"
    path.write_text("".join(f"{line}\n" for line in lines if json.loads(line)["ID"] in ids), encoding="utf-8")
    return path


def _run(job: Job, space: Workspace) -> Record:
    """Train and evaluate; runs in a process of its own."""
    import torch

    quiet()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    train(job, space)
    return evaluate(job, space)


def _teach(params: Params, pair: str, space: Workspace) -> None:
    """Train the teacher of the trials, unless it is there already."""
    job = params.teacher(pair)
    trained = space.teacher(pair) / "plan.json"
    planned = basis(job, space).read_text(encoding="utf-8")
    if not (trained.is_file() and trained.read_text(encoding="utf-8") == planned):
        _run(job, space)
        trained.write_text(planned, encoding="utf-8")


def weights(methods: list[str], params: Params, pair: str) -> dict[str, Run]:
    """The trials of each method, and one without a method."""
    found = {"inherit": Run("none", "head+neck", pair)}
    detector = detector_config(params.pairs[pair].student).model.type.lower()
    for method in methods:
        cls, published = method_class(method), published_settings(method, detector, MINI)
        # what goes with the size of a detector or was published for this one
        carried = {name: published[name] for name in {**cls.scaling, **cls.published.get(detector, {})}}
        for place, factor in enumerate(FACTORS):
            weight = float(f"{published[cls.weight_setting] * factor:.2g}")
            second = SECOND.get(method, {}) if place % 2 else {}
            found[f"{method}_{weight:g}"] = Run(
                method, "head+neck", pair, {**carried, cls.weight_setting: weight, **second}
            )
    return found


def named(path: Path, params: Params, pair: str) -> dict[str, Run]:
    """The runs in a file of trials: a mapping as under ``runs`` in params.yaml."""
    if not path.is_file():
        raise SettingsError(f"{path}: no such file; name one like experiments/trials.yaml")
    content = {name: {"pair": pair, **run} for name, run in yaml.safe_load(path.read_text(encoding="utf-8")).items()}
    return parse({**asdict(params), "runs": content, "seeds": list(params.seeds)}).runs


def held_out(params: Params, pair: str, space: Workspace, trials: Workspace) -> None:
    """Put the pair's data set, split anew, into the workspace ``trials``."""
    name = params.pairs[pair].dataset
    path = trials.dataset(name)
    data = split_train(DatasetInfo.load(name, space), path.parent).placed(space.root.absolute())
    path.write_text(json.dumps(asdict(data), indent=2), encoding="utf-8")


def _row(job: Job, space: Workspace) -> dict:
    """What a row says of a trial before it is measured; ``basis``: a digest of what it and its teacher were planned
    with, such as data, rates and code."""
    run, length = job.run, job.detector.iterations
    said = {"pair": job.pair_name, "trial": job.name, "method": run.method, "settings": json.dumps(run.settings)}
    plans = [json.loads(basis(job, space).read_text(encoding="utf-8"))["plan"]]
    plans.append(json.loads(basis(job.of_teacher, space).read_text(encoding="utf-8")))
    digest = hashlib.sha256(json.dumps(plans, sort_keys=True).encode()).hexdigest()[:12]
    return said | {"iterations": length, "seed": job.seed, "basis": digest}


def read_rows(out: Path) -> list[dict]:
    """The trials that a file holds."""
    return pd.read_csv(out).to_dict("records") if out.is_file() else []


def alike(row: dict, other: dict) -> bool:
    """Whether two rows are of one trial."""
    return all(row[key] == other[key] for key in SAME)


def is_done(row: dict, rows: list[dict]) -> bool:
    """Whether a trial is among the measured ones, on the same basis; older ones do not say on which."""
    known = [other.get("basis") for other in rows if alike(row, other)]
    return any(pd.isna(one) or one == row["basis"] for one in known)


def add_row(out: Path, row: dict) -> None:
    """Add a trial, in place of itself on another basis; another call may add its own at the same time."""
    with locked(out), written(out) as path:
        kept = [other for other in read_rows(out) if not alike(row, other)]
        pd.DataFrame([*kept, row]).to_csv(path, index=False)


def tune(params: Params, runs: dict[str, Run], pair: str, iterations: int, jobs: int, out: Path) -> None:
    """Train and evaluate the runs that ``out`` does not hold yet, and add them to it.

    A call waits for another one in this folder: both share the held-out data and the teacher.
    """
    space, whole = Workspace(HERE.work / "tune"), params.pairs[pair]
    if whole.teacher.checkpoint:
        raise SettingsError(
            f"pairs.{pair}.teacher.checkpoint: this teacher has seen the images that the trials are measured on; tune "
            "with a teacher that is trained here"
        )
    space.root.mkdir(parents=True, exist_ok=True)
    with (space.root / "search.lock").open("w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another search runs in this folder; this one begins when it has ended", file=sys.stderr)
            fcntl.flock(lock, fcntl.LOCK_EX)
        _tune(params, runs, pair, iterations, jobs, out, space)


def _tune(
    params: Params, runs: dict[str, Run], pair: str, iterations: int, jobs: int, out: Path, space: Workspace
) -> None:
    whole = params.pairs[pair]
    held_out(params, pair, HERE, space)
    cut = replace(whole, student=replace(whole.student, iterations=iterations))
    short = replace(params, pairs={pair: cut}, runs=runs)
    plan(short, space)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        pool.submit(_teach, short, pair, space).result()
    match(short, space)
    done, asked = read_rows(out), {name: _row(short.student(name), space) for name in runs}
    failed: dict[str, BaseException] = {}
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        names = [name for name in runs if not is_done(asked[name], done)]
        futures = {pool.submit(_run, short.student(name), space): name for name in names}
        for future in as_completed(futures):
            name = futures[future]
            if error := future.exception():
                # the others shall be kept; this one is tried again by the next call
                failed[name] = error
                continue
            accuracy = future.result().accuracy
            add_row(out, asked[name] | {key: accuracy[key] for key in ("AP", "AP50", "MR") if key in accuracy})
    if failed:
        name, error = next(iter(failed.items()))
        raise SettingsError(f"{len(failed)} of {len(names)} trials failed (first: {name}, {error})") from error


def main() -> None:
    parser = command_parser("tune")
    args = parser.parse_args()
    params = load(args.params)
    for name in args.methods:
        if name not in METHODS.module_dict:
            parser.error(unknown("method", name, sorted(METHODS.module_dict)))
    # names a pair that is not there before anything looks it up
    pair = params.teacher(args.pair).pair_name
    runs = named(args.trials, params, pair) if args.trials else weights(args.methods, params, pair)
    out = args.out or HERE.results / ("trials.csv" if args.trials else "tuning.csv")
    tune(params, runs, pair, args.iterations, args.jobs, out)


if __name__ == "__main__":
    run_cli(main, SettingsError, CheckpointError)
