"""What to say of a name that nobody knows: the known one that it is nearest to."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


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


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """``no run 'pdg'; did you mean 'pgd'?``"""
    return f"no {kind} '{name}'; {hint(name, known)}"
