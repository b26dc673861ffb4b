"""CrowdHuman's files: annotations (.odgt, one JSON object a line) and detections, checked.

A detections file is a JSON list of ``{"ID", "width", "height", "boxes": [[x, y, w, h, score], ...]}``: one entry an
image, size in pixels, boxes in pixels of that image, an empty list where nothing was found.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np


class CrowdHumanError(ValueError):
    """Annotations and detections cannot be read or do not belong together; the sentence says where and what to do."""


@dataclass(frozen=True)
class Truth:
    """The annotated boxes of one image: ``persons`` that are to be found, then regions to ignore."""

    #: [G, 4] full bodies, xyxy pixels, not clipped
    boxes: np.ndarray
    #: how many of the boxes, from the first, are persons
    persons: int
    #: [G] whether the box has a width and a height
    sized: np.ndarray

    def without_empty(self) -> Truth:
        """The same without boxes of no area."""
        persons = int(self.sized[: self.persons].sum())
        return Truth(self.boxes[self.sized], persons, self.sized[self.sized])


@dataclass(frozen=True)
class Found:
    """The detections of one image."""

    #: width and height of the image, pixels
    size: tuple[float, float]
    #: [D, 4] xyxy pixels, not clipped, best first
    boxes: np.ndarray
    #: [D] descending; equal ones stay in their given order
    scores: np.ndarray


def corners(boxes: np.ndarray) -> np.ndarray:
    """[N, 4] x, y, w, h as x1, y1, x2, y2."""
    return np.concatenate((boxes[:, :2], boxes[:, :2] + boxes[:, 2:4]), axis=1)


def numbers(rows: object, columns: int) -> np.ndarray:
    """[N, columns] float64; a ValueError says what is wrong with the rows."""
    try:
        array = np.asarray(rows, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"not rows of {columns} numbers") from None
    if not array.size:
        return np.empty((0, columns))
    if array.ndim != 2 or array.shape[1] != columns:
        raise ValueError(f"not rows of {columns} numbers")
    if not np.isfinite(array).all():
        raise ValueError("not all numbers are finite")
    return array


def read_odgt(path: str | Path) -> dict[str, Truth]:
    """ID -> annotated boxes, in the file's order.

    A box is ignored unless its tag is ``person`` and its ``extra.ignore``, if any, is 0.

    Raises:
        CrowdHumanError: a line is no JSON or no image of CrowdHuman, a box has a negative size, or an ID occurs twice;
            says the line.
    """
    truths: dict[str, Truth] = {}
    lines: dict[str, int] = {}
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                # some editors put a mark of the byte order in front
                name, truth = _truth(json.loads(line.decode("utf-8-sig")))
            except json.JSONDecodeError as error:
                raise CrowdHumanError(
                    f"{path}, line {number}: no complete JSON ({error}); is it cut off? Fetch the file again"
                ) from error
            except ValueError as error:
                raise CrowdHumanError(
                    f"{path}, line {number}: {error}; a line is "
                    '{"ID": ..., "gtboxes": [{"tag": ..., "fbox": [x, y, w, h], "extra": {"ignore": ...}}, ...]}'
                ) from error
            if name in truths:
                raise CrowdHumanError(f"{path}, line {number}: '{name}' has been on line {lines[name]}; remove one")
            truths[name], lines[name] = truth, number
    if not truths:
        raise CrowdHumanError(f"{path}: no image in it; is it CrowdHuman's annotation_*.odgt?")
    return truths


def _truth(record: dict) -> tuple[str, Truth]:
    """ID and boxes of one line; a ValueError says what is wrong with it."""
    try:
        name, boxes = record["ID"], record["gtboxes"]
        bodies = [box["fbox"] for box in boxes]
        tags = [box["tag"] for box in boxes]
        flags = [box.get("extra", {}).get("ignore", 0) for box in boxes]
    except KeyError as error:
        raise ValueError(f"no {error}") from None
    except (AttributeError, TypeError):
        raise ValueError("not an image of CrowdHuman") from None
    if not isinstance(name, str):
        raise ValueError(f"ID {name!r} is no text")
    try:
        found = numbers(bodies, 4)
    except ValueError as error:
        raise ValueError(f"fbox: {error}") from None
    # it would count as a person whom nobody can find
    if (negative := (found[:, 2:] < 0).any(axis=1)).any():
        box = bodies[int(negative.argmax())]
        raise ValueError(f"'{name}': fbox {box} is of negative size: write [x, y, width, height] or delete the box")
    if strange := [flag for flag in flags if not isinstance(flag, int | float)]:
        raise ValueError(f"extra.ignore: {strange[0]!r} is no number")
    ignored = np.array([tag != "person" or flag != 0 for tag, flag in zip(tags, flags, strict=True)], dtype=bool)
    found = found[np.argsort(ignored, kind="stable")]
    return name, Truth(corners(found), int((~ignored).sum()), (found[:, 2:] > 0).all(axis=1))


def read_detections(path: str | Path) -> list[dict]:
    """The entries of a detections file; :func:`check_detections` checks them.

    Raises:
        CrowdHumanError: the file is no JSON or holds no list.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise CrowdHumanError(
            f"{path}: no complete JSON ({error}); is it cut off? Write the detections again"
        ) from error
    if not isinstance(content, list):
        raise CrowdHumanError(f'{path}: not a list of {{"ID", "width", "height", "boxes"}}; are these detections?')
    return content


def write_detections(path: str | Path, detections: Iterable[Mapping]) -> None:
    """Write a detections file; boxes may be arrays. Folders are made."""
    content = [{**entry, "boxes": np.asarray(entry["boxes"]).tolist()} for entry in detections]
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps(content, separators=(",", ":")), encoding="utf-8")


def check_detections(detections: Iterable[Mapping]) -> Iterator[tuple[str, Found]]:
    """ID and detections of every entry, in the given order.

    Raises:
        CrowdHumanError: an entry has other keys, no positive size, boxes that are not five finite numbers, or an ID
            that another one has.
    """
    seen = set()
    for number, entry in enumerate(detections, start=1):
        if not isinstance(entry, Mapping) or set(entry) != {"ID", "width", "height", "boxes"}:
            has = sorted(entry) if isinstance(entry, Mapping) else repr(entry)[:40]
            raise CrowdHumanError(
                f"detections, entry {number}: needs ID, width, height, boxes and nothing else; it has {has}"
            )
        name = entry["ID"]
        if not isinstance(name, str):
            raise CrowdHumanError(
                f"detections, entry {number}: ID {name!r} is no text; it is the stem of the image's file name"
            )
        if name in seen:
            raise CrowdHumanError(f"detections of '{name}' are there twice (entry {number}); give each image once")
        seen.add(name)
        try:
            rows = numbers(entry["boxes"], 5)
            width, height = numbers([[entry["width"], entry["height"]]], 2)[0]
        except ValueError as error:
            raise CrowdHumanError(
                f"detections of '{name}': {error}; a box is [x, y, w, h, score]. NaN comes from a model that diverged"
            ) from None
        if min(width, height) < 1:
            raise CrowdHumanError(f"detections of '{name}': {width:g} x {height:g} is no size of an image in pixels")
        rows = rows[np.argsort(-rows[:, 4], kind="stable")]
        yield name, Found((width, height), corners(rows), rows[:, 4])
