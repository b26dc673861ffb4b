"""What data that lie outside of DVC's sight are at the moment, quick to find out: see :mod:`benchmark.look`."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from benchmark.data.crowdhuman import FOLDERS, PUBLISHED
from benchmark.experiment.settings import Dataset
from benchmark.experiment.workspace import file_digest

#: of a manifest: weights that are given for teachers, by path
CHECKPOINTS = "checkpoints"


def parts_of(settings: Dataset) -> tuple[list[Path], list[Path]]:
    """Annotation files and image folders of a set that is not ours, whether they are there or not; mini sets: none."""
    if settings.root is None:
        return [], []
    root = Path(settings.root).expanduser()
    if settings.kind == "coco":
        files, folders = zip(*settings.places.values(), strict=True)
    else:
        files = [f"annotation_{split}.odgt" for split in PUBLISHED]
        folders = [name.format(split) for split in PUBLISHED for name in FOLDERS]
    return [root / file for file in files], [root / folder for folder in dict.fromkeys(folders)]


def file_state(path: Path) -> str | None:
    """SHA-256 of a file; None where there is none."""
    return file_digest(path) if path.is_file() else None


def _walk(folder: str, seen: set[str]) -> Iterator[os.DirEntry]:
    """All files below a folder; links to folders are followed, in a circle once."""
    seen.add(os.path.realpath(folder))
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.is_dir():
                yield entry
            elif os.path.realpath(entry.path) not in seen:
                yield from _walk(entry.path, seen)


def folder_state(folder: Path) -> dict | None:
    """How many files a folder holds, and a digest of their names, lengths and dates; None where there is none."""
    if not folder.is_dir():
        return None
    lines = []
    for entry in _walk(str(folder), set()):
        try:
            state = entry.stat()
        except OSError:  # a link to nothing
            lines.append(f"{entry.path}\0")
            continue
        lines.append(f"{entry.path}\0{state.st_size} {state.st_mtime_ns}")
    text = "\n".join(sorted(lines))
    return {"files": len(lines), "digest": hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()}


def manifest(files: Iterable[Path], folders: Iterable[Path]) -> dict:
    """The state of annotation files and image folders, by path."""
    return {
        "annotations": {str(path): file_state(path) for path in files},
        "images": {str(path): folder_state(path) for path in folders},
    }


def changed_since(content: dict) -> list[str]:
    """The paths of an earlier manifest's data whose state is another now."""
    content = {kind: states for kind, states in content.items() if kind != CHECKPOINTS}
    now = manifest(map(Path, content["annotations"]), map(Path, content["images"]))
    return [path for kind, states in content.items() for path, state in states.items() if now[kind][path] != state]
