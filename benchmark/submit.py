"""Check records that somebody else made, and take them in: ``python -m benchmark.submit FOLDER --who NAME``.

``FOLDER`` is their folder of this experiment, whole or with these parts alone: ``results/runs``, ``results/curves``,
``work/plan``, and ``work/evaluate/<run>-<seed>/detections.json``. Typed in our folder of the same experiment, after
`dvc repro plan`. Each record must be of a training that our params.yaml asks for, with the config, the code and the
data that our plan has (these digests are what a protocol fixes; other versions of libraries are told); its curve must
be complete, and its detections, evaluated again, must give its figures. A line a check; where all are good, records
and curves are copied to ``results/others/<name>/``, which the front page shows beside ours. Nothing that is theirs is
executed or unpickled.
"""

from __future__ import annotations

if __name__ == "__main__":
    # help and usage errors come before the imports that take seconds
    from benchmark.experiment.cli import answer_early

    answer_early("submit")

import json
import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from benchmark.evidence.record import Record, ReportError, read_json
from benchmark.experiment.cli import command_parser, run_cli
from benchmark.experiment.config import DatasetInfo
from benchmark.experiment.settings import Job, Params, SettingsError, load
from benchmark.experiment.workspace import HERE, Workspace
from benchmark.training.hooks import INTERVAL
from pgd.evaluation.coco import coco_box_metrics
from pgd.evaluation.crowdhuman import evaluate
from pgd.evaluation.odgt import read_detections

#: how far figures evaluated again may be from those of a record, percent: records have three decimals
TOLERANCE = 0.01
#: what readers of files raise on files that are not what they seem
UNREADABLE = (ReportError, RuntimeError, OSError, LookupError, TypeError, ValueError, AssertionError, AttributeError)


@dataclass(frozen=True)
class Check:
    """One thing that was looked at, and what is wrong with it."""

    run: str
    what: str
    fault: str | None

    def __str__(self) -> str:
        return f"{'FAIL' if self.fault else 'ok  '} {self.run}: {self.what}{f': {self.fault}' if self.fault else ''}"


class SubmitError(RuntimeError):
    """Records that are not taken in."""


def jobs_of(params: Params) -> dict[str, Job]:
    """The trainings that an experiment asks for, by the names of their records."""
    return {job.label: job for job in params.jobs}


def inside(folder: Path, path: Path) -> Path:
    """``path``, unless it leads out of the folder."""
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ReportError(f"{path} is a link out of the folder; copy what it leads to")
    return path


def plan_fault(record: Record, job: Job, theirs: Workspace, ours: Workspace) -> str | None:
    """How config, code or data of a record differ from what our plan says."""
    if not ours.planned(job).is_file():
        return f"we have no plan of it ({ours.planned(job)}); run `dvc repro plan@{job.pair_name}`"
    planned, sent = read_json(ours.planned(job)), read_json(inside(theirs.root, theirs.planned(job)))
    if record.config_digest != planned["config"]:
        return f"config {record.config_digest}, planned is {planned['config']}; they changed settings or a config file"
    if record.seed != job.seed:
        return f"seed {record.seed}, planned is {job.seed}"
    ours_code, code = planned["code"], sent["code"]
    if other := sorted(name for name in ours_code.keys() | code.keys() if ours_code.get(name) != code.get(name)):
        return f"other code in {len(other)} of {len(ours_code)} modules (first: {other[0]}); take the same revision"
    return None if sent["data"] == planned["data"] else f"data {sent['data'][:12]}, ours are {planned['data'][:12]}"


def versions(job: Job, theirs: Workspace, ours: Workspace) -> str:
    """Whose libraries trained it; others are no fault, but are told."""
    sent, planned = read_json(inside(theirs.root, theirs.planned(job))), read_json(ours.planned(job))
    other = [
        f"{library} {version} (ours {planned['libraries'].get(library)})"
        for library, version in sent["libraries"].items()
        if version != planned["libraries"].get(library)
    ]
    return f"libraries: {', '.join(other) or 'ours'}"


def curve_fault(curve: pd.DataFrame, iterations: int) -> str | None:
    """What a curve lacks: losses of every tenth step and the last, finite, once each, and AP at the end."""
    if iterations == 0:
        return None
    losses = curve[curve["loss"].notna()]
    expected = sorted({*range(INTERVAL, iterations + 1, INTERVAL), iterations})
    steps = losses["step"].tolist()
    if lost := [step for step in expected if step not in set(steps)]:
        return f"{len(lost)} of {len(expected)} steps have no loss (first: {lost[0]})"
    if len(set(steps)) != len(steps):
        return "steps stand twice"
    if not all(map(math.isfinite, losses["loss"])):
        return "losses that are not finite"
    measured = curve.loc[curve["AP"].notna(), "step"]
    return None if iterations in set(measured) else f"no AP after the last step, {iterations}"


def figures_again(path: Path, data: DatasetInfo) -> dict[str, float]:
    """Accuracy of a file of detections on our own annotations, percent."""
    if data.metric == "crowdhuman":
        return {name: 100 * value for name, value in evaluate(data.val_odgt, read_detections(path)).items()}
    detections, images = read_json(path), read_json(Path(data.val_annotations))["images"]
    if not isinstance(detections, list):
        raise ReportError(f"{path} is no list of detections in COCO's format")
    if foreign := {one["image_id"] for one in detections} - {image["id"] for image in images}:
        raise ReportError(f"{path} has detections on image {min(foreign)}, which is not one of ours")
    return coco_box_metrics(data.val_annotations, detections, areas=tuple(data.areas))


def figures_fault(record: Record, found: dict[str, float]) -> str | None:
    """Which figure of a record its detections do not give."""
    for name, stated in record.accuracy.items():
        again = found.get(name, math.nan)
        if stated is None and math.isnan(again):
            continue
        if stated is None or not abs(again - stated) <= TOLERANCE:
            return f"{name} is {again:.3f}, the record says {stated}"
    return None


def _told(check: Callable[[], str | None]) -> str | None:
    """What a check finds; what it cannot read is a fault, too."""
    try:
        return check()
    except UNREADABLE as error:
        return f"{error}" if isinstance(error, ReportError) else f"{type(error).__name__}: {error}".splitlines()[0]


def checks(folder: Path, params: Params, ours: Workspace = HERE) -> Iterator[Check]:
    """Everything that is looked at, one after the other.

    Args:
        folder: theirs.
        params: of our experiment.
        ours: where our plan and prepared data lie.
    """
    theirs, jobs = Workspace(folder), jobs_of(params)
    paths = sorted((theirs.results / "runs").glob("*.json"))
    if not paths:
        raise SubmitError(f"{theirs.results / 'runs'}: no records there; give the folder of an experiment")
    for path in paths:
        label, job = path.stem, jobs.get(path.stem)
        try:
            record = Record.read(inside(folder, path))
        except UNREADABLE as error:
            yield Check(label, "record", str(error).splitlines()[0])
            continue
        yield Check(label, f"record of version {record.version}", None)
        if job is None:
            yield Check(label, "params.yaml", f"asks for no such training; there are: {', '.join(jobs)}")
            continue
        fault = _told(lambda r=record, j=job: plan_fault(r, j, theirs, ours))
        yield Check(label, "config, code and data", fault)
        if not fault:
            yield Check(label, versions(job, theirs, ours), None)
        curve = theirs.curve(job)
        yield Check(
            label,
            f"curve of {record.iterations} steps",
            _told(lambda r=record, c=curve: curve_fault(pd.read_csv(inside(folder, c)), r.iterations)),
        )
        data = DatasetInfo.load(job.pair.dataset, ours)
        found = theirs.detections(job)
        yield Check(
            label,
            f"AP {record.accuracy['AP']:.2f} from its detections",
            _told(lambda r=record, f=found, d=data: figures_fault(r, figures_again(inside(folder, f), d))),
        )


def take_in(folder: Path, who: str, params: Params, ours: Workspace = HERE) -> Path:
    """Check a folder, print what was found and copy its records and curves; returns where they are now.

    Raises:
        SubmitError: a check failed; nothing was copied.
    """
    found = []
    for check in checks(folder, params, ours):
        print(check, flush=True)
        found.append(check)
    if faults := [check for check in found if check.fault]:
        raise SubmitError(f"{folder}: {len(faults)} of {len(found)} checks failed; nothing was copied")
    theirs, out = Workspace(folder), ours.results / "others" / who
    if out.exists():
        raise SubmitError(f"{out}: there already; choose another --who or remove it")
    jobs = jobs_of(params)
    for label in dict.fromkeys(check.run for check in found):
        for source in (theirs.record(jobs[label]), theirs.curve(jobs[label])):
            target = out / source.relative_to(theirs.results)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
    (out / "checks.json").write_text(json.dumps([str(check)[5:] for check in found], indent=1) + "\n", encoding="utf-8")
    return out


def main() -> None:
    args = command_parser("submit").parse_args()
    print(f"copied to {take_in(args.folder, args.who, load(args.params))}")


if __name__ == "__main__":
    run_cli(main, SubmitError, SettingsError)
