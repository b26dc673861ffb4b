"""Which files the names in an annotation file stand for: in another Unicode form, behind links, or nearly there.

Links are followed where somebody of this machine has made them: the root, the images' folder, a folder below it
(``train2017/cam0 -> /mnt/cam0``). A single file that is a link must lead to something of the tree or of the folder that
holds it: one elsewhere may be anything, such as what an unpacked archive points to.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable
from pathlib import Path, PurePosixPath


def leads_out(name: str) -> bool:
    """Whether a relative file name may name something that is not below the folder it starts from, or no file."""
    try:
        os.fsencode(name)
    except UnicodeEncodeError:  # half of a character, which only JSON can write
        return True
    return name.startswith(("/", "\\")) or ".." in PurePosixPath(name.replace("\\", "/")).parts or "\0" in name


def image_names(names: Iterable[str], folder: Path, root: Path) -> tuple[dict[str, str], list[str]]:
    """Names as the disk has them, where they differ in their Unicode form only, and those whose file lies elsewhere.

    Args:
        names: relative to ``folder``.
        folder: of the images; it may be a link itself.
        root: files that are links may lead to anything below this or the folder.
    """
    allowed = {folder.resolve(), root.resolve()}
    found, outside = {}, []
    for name in names:
        forms = (name, *(unicodedata.normalize(form, name) for form in ("NFC", "NFD")))
        found[name] = own = next((form for form in forms if os.path.lexists(folder / form)), name)
        path = folder / own
        # links are rare, and to follow one takes time; a name too long for any file is none
        if os.path.islink(path) and {*allowed, path.parent.resolve()}.isdisjoint(path.resolve().parents):
            outside.append(name)
    return found, outside


def linked_folders(names: Iterable[str], folder: Path, root: Path) -> dict[str, Path]:
    """Where folders of images lead that lie, by links, neither below ``folder`` nor below ``root``, by name."""
    allowed = {folder.resolve(), root.resolve()}
    targets = {parent: (folder / parent).resolve() for parent in sorted({str(PurePosixPath(n).parent) for n in names})}
    return {parent: target for parent, target in targets.items() if allowed.isdisjoint((target, *target.parents))}


def near_names(names: Iterable[str], folder: Path) -> dict[str, str]:
    """By name of a file that is not there the one that may be meant: it differs in upper and lower case alone."""
    listed: dict[Path, dict[str, str]] = {}

    def nearest(place: Path, part: str) -> str | None:
        if os.path.lexists(place / part):
            return part
        if place not in listed:
            listed[place] = {one.casefold(): one for one in os.listdir(place)} if place.is_dir() else {}
        return listed[place].get(part.casefold())

    found = {}
    for name in names:
        own = PurePosixPath()
        for part in PurePosixPath(name).parts:
            if (near := nearest(folder / own, part)) is None:
                break
            own /= near
        else:
            if str(own) != name:
                found[name] = str(own)
    return found
