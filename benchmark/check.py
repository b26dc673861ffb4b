"""Read params.yaml and name what is wrong with it, in a second and without torch.  ``python -m benchmark.check``

DVC reads the same file for its stages before any of them runs, and what it says of a wrong one names no key
(``seeds: 0`` is "'Value' object is not iterable" to it). With ``--models``, as the stage `check`, the configs of all
detectors and the methods of all runs are built, so that a misspelt setting or key shows before anything is trained.
"""

from __future__ import annotations

if __name__ == "__main__":
    # help and usage errors come before the imports that take seconds
    from benchmark.experiment.cli import answer_early

    answer_early("check")

import re
from pathlib import Path

from benchmark.experiment.cli import command_parser, run_cli
from benchmark.experiment.names import unknown
from benchmark.experiment.settings import Params, SettingsError, load
from benchmark.experiment.workspace import HERE, ROOT, write_entry

#: how a file of pgd/methods gives its method a name
REGISTERED = re.compile(r'^@METHODS\.register_module\((?:name=)?"(.+)"', re.MULTILINE)


def counted(count: int, noun: str) -> str:
    """``1 run``, ``2 runs``."""
    return f"{count} {noun}{'s' * (count != 1)}"


def method_names() -> list[str]:
    """Names of all methods, read from their files: to import them, with torch, takes seconds."""
    files = (ROOT / "pgd" / "methods").glob("*.py")
    return sorted(name for file in files for name in REGISTERED.findall(file.read_text(encoding="utf-8")))


def check_methods(params: Params) -> None:
    """Raise :class:`SettingsError` where a run names a method that there is not."""
    known = method_names()
    for name, run in params.runs.items():
        if run.method not in ("none", *known):
            raise SettingsError(f"runs.{name}: {unknown('distillation method', run.method, known)}")


def summary(params: Params) -> str:
    """What the file asks for."""
    runs, seeds = len(params.runs), len(params.seeds)
    return (
        f"{counted(len(params.datasets), 'data set')}, {counted(len(params.pairs), 'teacher')}, "
        f"{counted(runs * seeds, 'student')} ({counted(runs, 'run')} x {counted(seeds, 'seed')})"
    )


def checked(path: str | Path, models: bool = False) -> Params:
    """The content of a settings file, with methods that there are; errors are one line that starts with its name.

    ``models``: its detectors and methods are built, too.
    """
    params = load(path)
    try:
        check_methods(params)
        if models:
            # seconds to import
            from benchmark.experiment.quiet import quiet
            from benchmark.experiment.soundness import check_models

            quiet()
            check_models(params)
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from None
    return params


def main() -> None:
    args = command_parser("check").parse_args()
    params = checked(args.params, args.models)
    if args.models:
        write_entry(HERE.checked, {"sound": sorted(params.runs)})
    print(f"{args.params}: {summary(params)}")


if __name__ == "__main__":
    run_cli(main, SettingsError)
