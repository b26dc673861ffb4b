"""Stage `closures`: write down, stage by stage, what code it goes through.

``python -m benchmark.closures`` writes ``work/closures/<stage>.json``: a digest of every module that the stage imports
(:mod:`benchmark.experiment.digest`). Stages depend on their file, so that a change of code runs again just what goes
through it. Trainings have theirs, run by run, from the stage `plan`. ``libraries.json`` has the versions that these
depend on. It runs at every `dvc repro`, in a second, as nothing else sees that a library is another one.
"""

from __future__ import annotations

if __name__ == "__main__":
    # help and usage errors come before the imports that take seconds
    from benchmark.experiment.cli import answer_early

    answer_early("closures")

import hashlib

from benchmark.experiment.cli import command_parser
from benchmark.experiment.digest import library_versions, stage_closures
from benchmark.experiment.workspace import HERE, ROOT, Workspace, file_digest, write_entries

#: Committed results that notebooks show beside those of their own experiment, or in place of what it has none of
#: (benchmark/notebook.py).
SHOWN = ("results", "experiments/crowd/results", "experiments/regions/results", "experiments/coco-regions/results")


def shown_beside(space: Workspace) -> dict[str, str]:
    """Digests of the :data:`SHOWN` results, but for those that this experiment makes itself."""
    folders = {name: ROOT / name for name in SHOWN if ROOT / name != space.results.resolve()}
    found = {}
    for name, folder in folders.items():
        files = sorted(path for kind in ("csv", "json") for path in folder.rglob(f"*.{kind}"))
        lines = (f"{path.relative_to(folder)} {file_digest(path)}\n" for path in files)
        found[name] = hashlib.sha256("".join(lines).encode()).hexdigest()
    return found


def main() -> None:
    command_parser("closures").parse_args()
    entries = stage_closures() | {"libraries": library_versions()}
    entries["notebooks"] |= shown_beside(HERE)
    write_entries(HERE.closures, entries)


if __name__ == "__main__":
    main()
