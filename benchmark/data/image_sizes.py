"""Sizes of many images from their headers, remembered in a JSON file so that a second look reads none of them."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image
from tqdm import tqdm

MISSING, UNREADABLE = "missing images", "unreadable images"
#: EXIF tag; from this value on, width and height change places
ORIENTATION, TURNED = 0x0112, 5


def header_size(path: Path) -> tuple[int, int]:
    """Width and height in pixels as OpenCV loads the image (turned by its EXIF entry), without decoding it.

    Raises OSError where there is no readable header.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            try:
                orientation = image.getexif().get(ORIENTATION, 1)
            except Exception:  # Pillow has no common error for a damaged EXIF block; OpenCV passes over it
                orientation = 1
    except Image.DecompressionBombError as error:
        raise OSError(str(error)) from None
    return (height, width) if orientation in range(TURNED, 9) else (width, height)


def _remembered(cache: Path) -> dict[str, list[int]]:
    """``{name: [width, height, bytes, mtime_ns]}``; nothing where the file is absent or damaged."""
    try:
        content = json.loads(cache.read_text())
    except (OSError, ValueError):
        return {}
    entries = content.items() if isinstance(content, dict) else ()
    return {k: v for k, v in entries if isinstance(v, list) and len(v) == 4 and all(isinstance(n, int) for n in v)}


def write_atomically(path: Path, text: str) -> None:
    """Write beside the target and move into place: other processes see the old file or the new one, never a part."""
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
    try:
        part.write_text(text)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _remember(caches: Sequence[Path], entries: dict[str, list[int]]) -> None:
    """Write to the first place that can be written; a set on a read-only disk is measured anew each time at worst."""
    for cache in caches:
        try:
            cache.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(cache, json.dumps(entries, separators=(",", ":"), sort_keys=True))
            return
        except OSError:
            continue


def image_sizes(
    images: Mapping[str, Path], caches: Sequence[Path] = ()
) -> tuple[dict[str, tuple[int, int]], dict[str, str]]:
    """Sizes of images by name.

    Args:
        images: file by name.
        caches: JSON files to remember sizes in, best place first: all are read, the first that can be written is
            written. An image whose length in bytes or whose date changed is measured anew.

    Returns:
        ``{name: (width, height)}`` in pixels, and :data:`MISSING` or :data:`UNREADABLE` by name for the others.
    """
    known = {name: entry for cache in reversed(caches) for name, entry in _remembered(cache).items()}
    sizes, problems, todo = {}, {}, {}
    for name, path in images.items():
        try:
            state = path.stat()
        except OSError:
            problems[name] = MISSING
            continue
        mark = [state.st_size, state.st_mtime_ns]
        entry = known.get(name)
        if entry and entry[2:] == mark:
            sizes[name] = (entry[0], entry[1])
        else:
            todo[name] = (path, mark)
    fresh = {}
    try:
        for name, (path, mark) in tqdm(todo.items(), desc="image sizes", mininterval=2, delay=2, leave=False):
            try:
                sizes[name] = header_size(path)
            except OSError:
                problems[name] = UNREADABLE
                continue
            fresh[name] = [*sizes[name], *mark]
    finally:  # an interrupted reading is not lost
        if fresh:
            _remember(caches, known | fresh)
    return sizes, problems
