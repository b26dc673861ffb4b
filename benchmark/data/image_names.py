"""Which files the names in an annotation file stand for: in another Unicode form, or behind links."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable
from pathlib import Path


def image_names(names: Iterable[str], folder: Path, root: Path) -> tuple[dict[str, str], list[str]]:
    """Names as the disk has them, where they differ in their Unicode form only, and those whose file lies elsewhere.

    Args:
        names: relative to ``folder``.
        folder: of the images; it may be a link itself.
        root: links may lead to anything below this or the folder.
    """
    allowed = {folder.resolve(), root.resolve()}

    def is_outside(path: Path) -> bool:
        return allowed.isdisjoint((target := path.resolve(), *target.parents))

    found, outside, inner = {}, [], {}
    for name in names:
        forms = (name, *(unicodedata.normalize(form, name) for form in ("NFC", "NFD")))
        found[name] = own = next((form for form in forms if os.path.lexists(folder / form)), name)
        path = folder / own
        # links are rare, and to follow one takes time
        if path.parent not in inner:
            inner[path.parent] = not is_outside(path.parent)
        if not inner[path.parent] or (path.is_symlink() and is_outside(path)):
            outside.append(name)
    return found, outside
