"""Which methods there are, and settings whose runs name such ones, without torch: a misspelt name is told at once."""

from __future__ import annotations

import re
from pathlib import Path

from benchmark.experiment.names import unknown
from benchmark.experiment.settings import Params, SettingsError, load
from benchmark.experiment.workspace import ROOT

#: how a file of pgd/methods gives its method a name
REGISTERED = re.compile(r'^@METHODS\.register_module\((?:name=)?"(.+)"', re.MULTILINE)


def method_names() -> list[str]:
    """Names of all methods, read from their files: to import them takes seconds."""
    files = (ROOT / "pgd" / "methods").glob("*.py")
    return sorted(name for file in files for name in REGISTERED.findall(file.read_text(encoding="utf-8")))


def load_checked(path: str | Path) -> Params:
    """The content of a settings file whose methods there are.

    Raises:
        SettingsError: one line that starts with the file's name.
    """
    params, known = load(path), method_names()
    for name, run in params.runs.items():
        if run.method not in ("none", *known):
            raise SettingsError(f"{path}: runs.{name}: {unknown('distillation method', run.method, known)}")
    return params
