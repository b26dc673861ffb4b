"""What the mini sets share: their splits, JPEG bytes, and zip archives whose bytes follow from their content alone."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

#: every member of an archive carries this date
DATE = (2022, 3, 5, 0, 0, 0)


@dataclass(frozen=True)
class Split:
    """A part of a set: its name, the number that enters the seed, and how many images it has."""

    name: str
    number: int
    images: int


class Archive:
    """An uncompressed zip file being written; members keep the order in which they are added."""

    def __init__(self, file: zipfile.ZipFile) -> None:
        self._file = file

    def add(self, name: str, data: bytes) -> None:
        self._file.writestr(zipfile.ZipInfo(name, DATE), data)


@contextmanager
def new_archive(path: Path) -> Iterator[Archive]:
    """An archive that takes its name only when it is complete; what stood at ``path`` stays until then."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".partial")
    with zipfile.ZipFile(unfinished, "w") as file:
        yield Archive(file)
    unfinished.replace(path)


def jpeg(image: np.ndarray, quality: int, optimize: bool = False) -> bytes:
    """``image`` (uint8 RGB) as a JPEG file; ``optimize`` makes it some 5% smaller without loss."""
    options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_OPTIMIZE, int(optimize)]
    ok, data = cv2.imencode(".jpg", image[..., ::-1], options)
    if not ok:
        raise OSError(f"OpenCV could not encode an image of shape {image.shape}")
    return data.tobytes()
