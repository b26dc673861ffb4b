"""Reads tables: a row an object, columns for the image's file, the class and the corners of the box.

There is no one format: columns are found by any of the names that tools give them (TensorFlow's object detection
tutorials, RetinaNet's, Kaggle's).
"""

from __future__ import annotations

import csv
from pathlib import Path

from benchmark.data.faults import DataError
from benchmark.data.foreign import Photo, Thing, corners, said_size

#: names of columns, in lower case, by what they hold
COLUMNS = {
    "image": ("filename", "file_name", "image", "image_id", "path"),
    "label": ("class", "label", "class_name", "cell_type", "name", "category"),
    "x1": ("xmin", "x1", "x_min"),
    "y1": ("ymin", "y1", "y_min"),
    "x2": ("xmax", "x2", "x_max"),
    "y2": ("ymax", "y2", "y_max"),
}
SIZE = ("width", "height")


def _columns(path: Path, header: list[str]) -> dict[str, int]:
    """Places of the columns."""
    names = [name.strip().lower() for name in header]
    found = {}
    for what, known in COLUMNS.items():
        places = [names.index(name) for name in known if name in names]
        if not places:
            raise DataError(f"{path}: line 1: no column for {what}; call one {' or '.join(known)}")
        found[what] = places[0]
    return found | {key: names.index(key) for key in SIZE if key in names}


def _size(row: list[str], places: dict[str, int]) -> tuple[int, int] | None:
    return said_size(*(row[places[key]].strip() for key in SIZE)) if all(key in places for key in SIZE) else None


def read_csv(annotations: Path) -> list[Photo]:
    """The content of a table, or of all tables (``.csv``) in a folder; corners are edges, counted from 0.

    Args:
        annotations: the file or folder.

    Raises:
        DataError: there is none, a column is missing, or a row is too short.
    """
    files = sorted(annotations.glob("*.csv")) if annotations.is_dir() else [annotations]
    if not files:
        raise DataError(f"{annotations}: no table (.csv) in it; give the file or the folder of the annotations")
    photos = []
    for path in files:
        try:
            with path.open(newline="", encoding="utf-8-sig") as file:
                rows = list(csv.reader(file))
        except (OSError, UnicodeError, csv.Error) as error:
            raise DataError(f"{path}: cannot be read ({error}); give a table in UTF-8") from None
        if not rows:
            raise DataError(f"{path}: empty; give a table with the columns' names in line 1")
        places = _columns(path, rows[0])
        things: dict[str, list[Thing]] = {}
        sizes: dict[str, tuple[int, int] | None] = {}
        for number, row in enumerate(rows[1:], start=2):
            if not row:
                continue
            if len(row) <= max(places.values()):
                raise DataError(f"{path}: line {number}: {len(row)} columns and not {len(rows[0])}; mend or delete it")
            name = row[places["image"]].strip().replace("\\", "/")
            sizes.setdefault(name, _size(row, places))
            box = corners([row[places[side]] for side in ("x1", "y1", "x2", "y2")])
            things.setdefault(name, []).append(Thing(row[places["label"]].strip(), box, f"line {number}"))
        photos += [Photo(name, path, tuple(found), sizes[name]) for name, found in things.items()]
    return photos
