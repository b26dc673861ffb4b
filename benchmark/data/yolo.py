"""Reads YOLO's format: a text file an image, a line an object, ``class x y width height`` as shares of the image.

Format: docs.ultralytics.com/datasets/detect, "Ultralytics YOLO format"; x and y are of the box's middle, classes are
numbers from 0. The names of the classes stand in another file, so they have to be given.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from benchmark.data.faults import DataError, Faults
from benchmark.data.foreign import Photo, Thing, corners, image_files
from benchmark.data.image_sizes import MISSING, header_of, problem_of

#: files beside the annotations that are none
OTHERS = {"classes.txt", "obj.names", "train.txt", "val.txt", "test.txt", "readme.txt"}


def _thing(line: str, number: int, size: tuple[int, int], classes: Sequence[str]) -> Thing:
    """The object of a line; width and height of the image are pixels."""
    label, *sides = line.split()
    name = classes[int(label)] if label.isdecimal() and int(label) < len(classes) else f"class {label}"
    # a polygon has more numbers than a box, and is none
    shares = corners(sides) if len(sides) == 4 else None
    place = f"line {number}"
    if shares is None:
        return Thing(name, None, place)
    (x, y, w, h), (width, height) = shares, size
    return Thing(name, ((x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height), place)


def read_yolo(annotations: Path, images: Path, faults: Faults, classes: Sequence[str]) -> list[Photo]:
    """The content of all text files below a folder that an image has.

    Args:
        annotations: folder of the text files.
        images: folder of the images, in the same folders below it.
        faults: notes what is odd.
        classes: names of the classes, by number.

    Raises:
        DataError: there is none, or one is no text.
    """
    if not classes:
        raise DataError(f"{annotations}: YOLO's files number their classes; name them in this order by --classes")
    files = sorted(path for path in annotations.rglob("*.txt") if path.name.lower() not in OTHERS)
    if not files:
        raise DataError(f"{annotations}: no text file in it; give the folder of the annotations")
    stems = {PurePosixPath(name).with_suffix(""): name for name in image_files(images)}
    photos = []
    for path in files:
        own = PurePosixPath(path.relative_to(annotations).as_posix())
        if (name := stems.get(own.with_suffix(""))) is None:
            faults.add(MISSING, str(own))
            continue
        try:
            width, height, _ = header_of(images / name)
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeError:
            raise DataError(f"{path}: not text in UTF-8; mend it or move it away") from None
        except OSError as error:
            faults.add(problem_of(error), str(own), name)
            continue
        rows = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
        things = tuple(_thing(line, number, (width, height), classes) for number, line in rows)
        photos.append(Photo(name, path, things))
    return photos
