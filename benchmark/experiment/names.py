"""What to say of a name that nobody knows: the known one that it is nearest to; and the names of all methods."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from benchmark.experiment.workspace import ROOT

#: how a file of pgd/methods gives its method a name
REGISTERED = re.compile(r'^@METHODS\.register_module\((?:name=)?"(.+)"', re.MULTILINE)


def hint(name: str, known: Iterable[str], listed: str = "there are") -> str:
    """``did you mean 'pgd'?`` where a known name is near, else all of them.

    Args:
        name: what was asked for.
        known: what there is.
        listed: the words before the list.
    """
    names = list(known)
    close = difflib.get_close_matches(str(name), names)
    # letters that changed places: to difflib, `pdg` is as near to `pkd` as to `pgd`
    close.sort(key=lambda one: sorted(one) != sorted(str(name)))
    return f"did you mean '{close[0]}'?" if close else f"{listed}: {', '.join(names) or 'none'}"


def method_names() -> list[str]:
    """Names of all methods, read from their files: to import them, with torch, takes seconds."""
    files = (ROOT / "pgd" / "methods").glob("*.py")
    return sorted(name for file in files for name in REGISTERED.findall(file.read_text(encoding="utf-8")))


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """``no run 'pdg'; did you mean 'pgd'?``"""
    return f"no {kind} '{name}'; {hint(name, known)}"
