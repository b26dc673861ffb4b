"""What to say of a name that nobody knows, and of a value that is none of its kind."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

#: of single values; the rest (None, lists, mappings) may take each other's place
KINDS = {bool: "true or false", int: "a number", float: "a number", str: "text"}


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


def wrong_kind(value: object, own: object) -> str | None:
    """Why a value cannot take the place of ``own``: one is a number, and the other is text, say; None where it can."""
    wanted, found = KINDS.get(type(own)), KINDS.get(type(value))
    if None in (wanted, found) or wanted == found:
        return None
    told = f"{value!r} should be {wanted}, as {own!r} is"
    # the one that everybody meets: a learning rate of 1e-3
    return f"{told} (YAML takes 1e-3 for text, write 1.0e-3)" if (wanted, found) == ("a number", "text") else told
