"""Looks at many images without decoding them: sizes, whether they are whole, a fingerprint.

What was seen is remembered in a JSON file, so that a second look reads none of them.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
from PIL import Image
from tqdm import tqdm

MISSING, UNREADABLE, CUT = "missing images", "unreadable images", "truncated images"
FORBIDDEN, FOREIGN = "images that this user may not read", "images of a kind that OpenCV does not decode"
HUGE = f"images of more than {2 * Image.MAX_IMAGE_PIXELS // 1_000_000} million pixels"
#: Where this one is scaled to 160 pixels, the shorter side comes to two: of one, mmcv could not turn it over.
LONGEST = 100
STRIP, LINE = f"images that are more than {LONGEST} times as long as wide", "images that are one pixel wide or high"
#: what :func:`look` may say of an image
PROBLEMS = (MISSING, FORBIDDEN, UNREADABLE, CUT, FOREIGN, HUGE, STRIP, LINE)
#: EXIF tag; from this value on, width and height change places
ORIENTATION, TURNED = 0x0112, 5


class UnfitError(OSError):
    """An image that is whole and yet cannot be used; the text is one of :data:`PROBLEMS`."""


def header_of(path: Path) -> tuple[int, int, int]:
    """Width and height in pixels as OpenCV loads the image (turned by its EXIF entry), and that entry; no decoding.

    Raises OSError where there is no readable header, and :class:`UnfitError` where OpenCV would not load the image.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            # samples of 32 bits
            if image.mode in ("F", "I") or not cv2.haveImageReader(str(path)):
                raise UnfitError(FOREIGN)
            try:
                # Pillow decodes a whole PNG to look for an entry behind its pixels
                known = image.format != "PNG" or "exif" in image.info
                orientation = image.getexif().get(ORIENTATION, 1) if known else 1
            except Exception:  # Pillow has no common error for a damaged EXIF block; OpenCV passes over it
                orientation = 1
    except Image.DecompressionBombError:
        raise UnfitError(HUGE) from None
    orientation = orientation if orientation in range(1, 9) else 1
    return (height, width, orientation) if orientation >= TURNED else (width, height, orientation)


#: how JPEG and PNG files end
ENDS = {b"\xff\xd8": b"\xff\xd9", b"\x89P": b"IEND\xaeB`\x82"}
#: bytes at the end of a file that its fingerprint is of
TAIL = 4096


class Header(NamedTuple):
    """What is known of an image file that was not decoded."""

    #: pixels, as OpenCV loads it (turned by its EXIF entry)
    width: int
    height: int
    #: EXIF orientation; 1: as it is stored
    orientation: int
    #: of its last bytes: compressed data that differ mostly end differently
    checksum: int
    bytes: int
    mtime_ns: int

    @property
    def size(self) -> tuple[int, int]:
        return self.width, self.height


def is_cut(path: Path, tail: bytes) -> bool:
    """Whether the end of an image file is missing; one without the mark of its kind's end is decoded to find out."""
    with path.open("rb") as file:
        end = ENDS.get(file.read(2))
    # some cameras fill up their files
    if end and tail.rstrip(b"\0").endswith(end.rstrip(b"\0")):
        return False
    try:
        with Image.open(path) as image:
            image.load()
    except (OSError, SyntaxError, ValueError):  # Pillow has no common error for damaged data
        return True
    return False


def _remembered(cache: Path) -> dict[str, Header]:
    """What a file remembers; nothing where it is absent or damaged."""
    try:
        content = json.loads(cache.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    entries = content.items() if isinstance(content, dict) else ()
    count = len(Header._fields)
    sound = (e for e in entries if isinstance(e[1], list) and len(e[1]) == count)
    return {name: Header(*entry) for name, entry in sound if all(isinstance(n, int) for n in entry)}


def write_atomically(path: Path, text: str) -> None:
    """Write beside the target and move into place: other processes see the old file or the new one, never a part."""
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
    try:
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _remember(caches: Sequence[Path], entries: Mapping[str, Header]) -> None:
    """Write to the first place that can be written; a set on a read-only disk is looked at anew each time at worst."""
    for cache in caches:
        try:
            cache.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(cache, json.dumps(entries, separators=(",", ":"), sort_keys=True))
            return
        except OSError:
            continue


def look(images: Mapping[str, Path], caches: Sequence[Path] = ()) -> tuple[dict[str, Header], dict[str, str]]:
    """Headers of images by name.

    Args:
        images: file by name.
        caches: JSON files to remember headers in, best place first: all are read, the first that can be written is
            written. An image whose length in bytes or whose date changed is looked at anew.

    Returns:
        Headers, and one of :data:`PROBLEMS` by name for the other images.
    """
    known = {name: header for cache in reversed(caches) for name, header in _remembered(cache).items()}
    found, problems, todo = {}, {}, {}
    for name, path in images.items():
        try:
            state = path.stat()
        except OSError as error:
            problems[name] = FORBIDDEN if isinstance(error, PermissionError) else MISSING
            continue
        header = known.get(name)
        if header and (header.bytes, header.mtime_ns) == (state.st_size, state.st_mtime_ns):
            found[name] = header
        else:
            todo[name] = (path, state)
    fresh = {}
    try:
        for name, (path, state) in tqdm(todo.items(), desc="image headers", mininterval=2, delay=2, leave=False):
            try:
                width, height, orientation = header_of(path)
                with path.open("rb") as file:
                    file.seek(max(0, state.st_size - TAIL))
                    tail = file.read()
                if is_cut(path, tail):
                    problems[name] = CUT
                    continue
            except OSError as error:
                problems[name] = problem_of(error)
                continue
            fresh[name] = Header(width, height, orientation, zlib.crc32(tail), state.st_size, state.st_mtime_ns)
    finally:  # an interrupted look is not lost
        if fresh:
            _remember(caches, known | fresh)
    found |= fresh
    problems |= {name: problem for name, header in found.items() if (problem := _odd_size(header))}
    return {name: header for name, header in found.items() if name not in problems}, problems


def _odd_size(header: Header) -> str | None:
    """Why an image cannot be scaled or turned over, if so."""
    short, long = sorted(header.size)
    return LINE if short < 2 else STRIP if long > LONGEST * short else None


def problem_of(error: OSError) -> str:
    """What keeps a file from being used."""
    if isinstance(error, UnfitError):
        return str(error)
    return FORBIDDEN if isinstance(error, PermissionError) else UNREADABLE


def fingerprint(headers: Mapping[str, Header]) -> bytes:
    """Digest of image files by name, wherever they lie and whenever they were written."""
    lines = (f"{name}\0{h.width} {h.height} {h.orientation} {h.bytes} {h.checksum}" for name, h in headers.items())
    return hashlib.sha256("\n".join(sorted(lines)).encode()).digest()
