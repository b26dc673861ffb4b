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

from benchmark.experiment.cli import command_parser
from benchmark.experiment.digest import library_versions, stage_closures
from benchmark.experiment.workspace import HERE, write_entries


def main() -> None:
    command_parser("closures").parse_args()
    write_entries(HERE.closures, stage_closures() | {"libraries": library_versions()})


if __name__ == "__main__":
    main()
