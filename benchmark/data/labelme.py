"""Reads labelme: a JSON file an image, with shapes of which only the box is kept.

Format: github.com/wkentaro/labelme, ``labelme/label_file.py`` and ``shape.py``: points in pixels, edges from 0.
"""

from __future__ import annotations

import json
import math
from pathlib import Path, PurePosixPath
from typing import Any

from benchmark.data.faults import DataError, Faults
from benchmark.data.foreign import RENAMED, Corners, Photo, Thing, corners, said_size
from benchmark.data.image_sizes import MISSING
from benchmark.data.voc import Names

#: shapes that have no extent
BARE = ("point", "points")


def _content(path: Path) -> dict:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeError, ValueError) as error:
        raise DataError(f"{path}: no JSON ({error}); mend it or move it away") from None
    if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
        raise DataError(f"{path}: has no list of shapes; is it a file of labelme?")
    return content


def _points(shape: Any) -> list[tuple[float, float]] | None:
    """The points of a shape; None where they are no pairs of numbers."""
    points = shape.get("points")
    try:
        found = [(float(x), float(y)) for x, y in points]
    except (TypeError, ValueError):
        return None
    return found or None


def box_of(shape: dict) -> Corners | None:
    """The box around a shape; None of a point, or of what has no numbers for points.

    Rectangles and masks have two corners, circles their centre and a point on the line; all others (polygons, lines)
    lie between their outermost points.
    """
    points = _points(shape)
    if points is None or shape.get("shape_type") in BARE:
        return None
    if shape.get("shape_type") == "circle" and len(points) == 2:
        (x, y), rim = points
        radius = math.dist((x, y), rim)
        return corners([x - radius, y - radius, x + radius, y + radius])
    across, down = zip(*points, strict=True)
    return corners([min(across), min(down), max(across), max(down)])


def read_labelme(annotations: Path, images: Path, faults: Faults) -> list[Photo]:
    """The content of all JSON files below a folder.

    Args:
        annotations: folder of the JSON files.
        images: folder of the images, in the same folders below it or all at its top.
        faults: notes what is odd.

    Raises:
        DataError: there is none, or a file is none of labelme.
    """
    files = sorted(annotations.rglob("*.json"))
    if not files:
        raise DataError(f"{annotations}: no JSON file in it; give the folder of the annotations")
    names, photos = Names(images), []
    for path in files:
        content, own = _content(path), PurePosixPath(path.relative_to(annotations).as_posix())
        # a path from the JSON file on, with the separators of the machine that wrote it
        said = PurePosixPath(str(content.get("imagePath") or "").replace("\\", "/")).name
        name = names.of(own, said)
        if name is None:
            faults.add(MISSING, str(own), said)
            continue
        if said and said != PurePosixPath(name).name:
            faults.add(RENAMED, str(own), f"{said}, but {name} is there")
        things = []
        for number, shape in enumerate(content["shapes"], start=1):
            if not isinstance(shape, dict):
                raise DataError(f"{path}: shape {number} is no entry with a label and points; mend or delete it")
            things.append(Thing(str(shape.get("label", "")), box_of(shape), f"shape {number}"))
        size = said_size(*(str(content.get(side) or 0) for side in ("imageWidth", "imageHeight")))
        photos.append(Photo(name, path, tuple(things), size))
    return photos
