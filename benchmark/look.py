"""Stage `look`: has a data set changed that lies outside of this folder?

``python -m benchmark.look NAME`` writes ``work/look/<name>.json``: digests of the annotation files of a COCO or
CrowdHuman tree, and of the names, lengths and dates of its images. The stage runs at every `dvc repro`, which takes
seconds for all of COCO; what comes behind it runs again only where the file has changed. A mini set's is empty: DVC
knows its archive. The weights that params.yaml gives for teachers on a data set are looked at with it, for `plan`.

A misspelt method is told here, too: where the data are missing it may be the first stage to run.
"""

from __future__ import annotations

if __name__ == "__main__":
    # help and usage errors come before the imports that take seconds
    from benchmark.experiment.cli import answer_early

    answer_early("look")

import json
from collections.abc import Sequence
from pathlib import Path

from benchmark.check import checked
from benchmark.data.faults import DataError
from benchmark.data.manifest import CHECKPOINTS, changed_since, file_state, manifest, parts_of
from benchmark.experiment.cli import command_parser, run_cli
from benchmark.experiment.settings import Dataset, SettingsError
from benchmark.experiment.workspace import HERE, Workspace


def look(name: str, settings: Dataset, space: Workspace = HERE, checkpoints: Sequence[Path] = ()) -> None:
    """Write down what the data set ``name`` is now, and files of weights that are given for teachers on it."""
    path = space.look(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = manifest(*parts_of(settings))
    if checkpoints:
        content[CHECKPOINTS] = {str(one): file_state(one) for one in checkpoints}
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def check_unchanged(name: str, space: Workspace = HERE) -> None:
    """Raise :class:`DataError` where a data set is no longer what the stage saw."""
    path = space.look(name)
    # nothing to compare with where `prepare` was run by hand
    if path.is_file() and (changed := changed_since(json.loads(path.read_text(encoding="utf-8")))):
        raise DataError(f"{changed[0]}: changed since `dvc repro` looked at it; run `dvc repro` again")


def main() -> None:
    args = command_parser("look").parse_args()
    params = checked(args.params)
    teachers = [pair.teacher for pair in params.pairs.values() if pair.dataset == args.dataset]
    given = [Path(one.checkpoint) for one in teachers if one.checkpoint and not one.is_address]
    look(args.dataset, params.dataset(args.dataset), checkpoints=given)


if __name__ == "__main__":
    run_cli(main, SettingsError)
