"""CrowdHuman (Shao et al., 2018): its ``.odgt`` annotations, their faults, and their conversion to COCO's format.

One JSON object a line: ``{"ID", "gtboxes": [{"tag", "fbox", "vbox", "hbox", "extra", "head_attr"}]}``, boxes
``[x, y, w, h]`` in pixels of the whole body (often beyond the image), its visible part and the head. ``extra`` and
``head_attr`` may be absent. Boxes of another tag than ``person`` (``mask``: crowds, reflections, statues) and those
with ``extra.ignore`` are neither to be found nor false when found.

CrowdHuman is for non-commercial research and education, and its images must not be passed on: it is never downloaded
here.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.data.faults import DataError, Faults, Xywh, xywh
from benchmark.data.image_names import image_names, leads_out, near_names
from benchmark.data.image_sizes import MISSING, Header, look, write_atomically
from benchmark.experiment.workspace import file_digest

PERSON = "person"
#: kinds of faults besides those of images (benchmark/data/image_sizes.py)
BROKEN_LINE, NO_ID, DUPLICATE = "broken lines", "records without an ID", "duplicate IDs"
BROKEN_BOX, NO_AREA, NEGATIVE = "broken boxes", "boxes without area", "boxes of negative size"
ESCAPES = "images that are links out of the root"
#: Faults that published files may have. PGD's conversion drops boxes without area, too; a negative size, by which
#: the metric would count a person whom nobody can find, is left out of it as well.
EXPECTED = frozenset({NO_AREA, NEGATIVE})
SOURCE = (
    "CrowdHuman is never downloaded here: get it from crowdhuman.org (for non-commercial research and education only; "
    "its images must not be redistributed)"
)
#: where the images of a split may lie below the root
FOLDERS = ("Images", "images", "CrowdHuman_{}/Images")


@dataclass(frozen=True, slots=True)
class Box:
    """One annotated object; boxes ``(x, y, w, h)`` in pixels, as published: neither clipped nor checked for area."""

    tag: str
    full: Xywh
    visible: Xywh | None
    head: Xywh | None
    #: ``extra.ignore`` is there and not zero
    marked: bool

    @property
    def ignore(self) -> bool:
        """Whether this is a region to ignore and no person to be found."""
        return self.tag != PERSON or self.marked

    @property
    def has_area(self) -> bool:
        return self.full[2] > 0 and self.full[3] > 0


@dataclass(frozen=True, slots=True)
class Record:
    """The annotations of one image."""

    id: str
    #: in the file, from 1
    line: int
    boxes: tuple[Box, ...]
    #: the line itself, without broken boxes
    text: str

    @property
    def file_name(self) -> str:
        return f"{self.id}.jpg"


@dataclass(frozen=True)
class Published:
    """What is known of a published annotation file."""

    sha256: str
    images: int
    #: boxes that are not to be ignored, where it is known
    persons: int | None = None


PUBLISHED = {
    "train": Published("6bf241a79f19e30cf52681eab3392368bd5a534164be9272e7a808cb284d9f77", 15000, 339_565),
    "val": Published("be422c79a190ff7e30fe5cbd74cbf45a2dadda6c5af58c6ec11a038ba2993c04", 4370),
}


def _box(content: object) -> Box | str:
    """A box, or what is wrong with it."""
    if not isinstance(content, dict):
        return "no JSON object"
    if not isinstance(content.get("tag"), str):
        return "no tag"
    if (full := xywh(content.get("fbox"))) is None:
        return "fbox is not four numbers"
    extra = content.get("extra", {})
    if not isinstance(extra, dict):
        return "extra is no JSON object"
    if not isinstance(flag := extra.get("ignore", 0), int | float):
        return f"extra.ignore {flag!r} is no number"
    visible, head = xywh(content.get("vbox")), xywh(content.get("hbox"))
    return Box(content["tag"], full, visible, head, marked=flag != 0)


def _boxes(listed: list, line: int, faults: Faults) -> list[Box | None]:
    """As many as listed; None for the broken ones, which are told to ``faults``."""
    boxes: list[Box | None] = []
    for i, content in enumerate(listed, 1):
        box = _box(content)
        if isinstance(box, str):
            faults.add(BROKEN_BOX, line, f"box {i}: {box}")
            boxes.append(None)
            continue
        if min(box.full[2:]) < 0:
            faults.add(NEGATIVE, line, f"box {i}: fbox {list(box.full)} is [x, y, width, height]")
            boxes.append(None)
            continue
        if not box.has_area:
            faults.add(NO_AREA, line, f"box {i}: fbox {list(box.full)}")
        boxes.append(box)
    return boxes


def read_odgt(path: Path, faults: Faults) -> list[Record]:
    """All sound records of a file in its order; ``faults`` collects the others. Empty lines are passed over."""
    records: list[Record] = []
    seen: dict[str, int] = {}
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                text = line.decode("utf-8-sig").strip()
                content = json.loads(text)
            except (ValueError, RecursionError) as error:
                faults.add(BROKEN_LINE, number, f"no JSON, {error}" if isinstance(error, ValueError) else "no JSON")
                continue
            listed = content.get("gtboxes") if isinstance(content, dict) else None
            if not isinstance(listed, list):
                faults.add(BROKEN_LINE, number, "no list 'gtboxes'")
                continue
            name = content.get("ID")
            # It names a file: what leads out of the images' folder is no ID.
            if not isinstance(name, str) or not name or {"/", "\\"} & set(name) or leads_out(name):
                faults.add(NO_ID, number, f"ID {name!r}" if "ID" in content else "")
                continue
            if name in seen:
                faults.add(DUPLICATE, number, f"'{name}' stands in line {seen[name]}")
                continue
            seen[name] = number
            boxes = _boxes(listed, number, faults)
            if None in boxes:
                text = json.dumps({**content, "gtboxes": [c for c, b in zip(listed, boxes, strict=True) if b]})
            records.append(Record(name, number, tuple(b for b in boxes if b), text))
    return records


def write_odgt(path: Path, records: Sequence[Record]) -> None:
    """The records' own lines."""
    write_atomically(path, "".join(f"{record.text}\n" for record in records))


def measured(
    records: Sequence[Record], images: Path, root: Path, caches: Sequence[Path], faults: Faults
) -> tuple[list[Record], dict[str, Header]]:
    """The records whose image is there, below ``root``, and readable, and their headers by ID."""
    outside = set(image_names((r.file_name for r in records), images, root)[1])
    headers, problems = look({r.id: images / r.file_name for r in records if r.file_name not in outside}, caches)
    problems |= {r.id: ESCAPES for r in records if r.file_name in outside}
    near = near_names((r.file_name for r in records if problems.get(r.id) == MISSING), images)
    for record in records:
        if record.id in problems:
            hint = f"; there is {near[record.file_name]}" if record.file_name in near else ""
            faults.add(problems[record.id], record.line, f"{images / record.file_name}{hint}")
    return [r for r in records if r.id in headers], headers


def to_coco(records: Sequence[Record], sizes: dict[str, tuple[int, int]]) -> dict:
    """COCO's dictionary, by the rules of PGD's conversion (``crowd_code/create_crowd_anno.py``).

    Boxes are the whole bodies' and not clipped; those without area are left out. ``iscrowd`` marks what is to be
    ignored. Images and annotations are numbered from 1 in the records' order.
    """
    images, annotations = [], []
    for image_id, record in enumerate(records, 1):
        width, height = sizes[record.id]
        images.append({"id": image_id, "file_name": record.file_name, "width": width, "height": height})
        for box in (b for b in record.boxes if b.has_area):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": 1,
                    "bbox": list(box.full),
                    "area": box.full[2] * box.full[3],
                    "iscrowd": int(box.ignore),
                }
            )
    return {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": PERSON}]}


def find(root: Path) -> dict[str, tuple[Path, list[Path]]]:
    """The annotation file and the possible image folders of both splits; an error names all that is missing."""
    if not root.is_dir():
        raise DataError(f"root: {root} is no folder; {SOURCE}")
    found, missing = {}, []
    for split in PUBLISHED:
        odgt = root / f"annotation_{split}.odgt"
        names = [name.format(split) for name in FOLDERS]
        folders = [root / name for name in names if (root / name).is_dir()]
        if not odgt.is_file():
            missing.append(f"no {odgt.name}")
        if not folders:
            missing.append(f"no folder with the {split} images ({', '.join(names[:-1])} or {names[-1]})")
        found[split] = (odgt, folders)
    if missing:
        raise DataError(f"{root}: {', '.join(missing)}; {SOURCE}")
    return found


def folder_of(records: Sequence[Record], folders: Sequence[Path]) -> Path:
    """The folder that holds most of the records' images; the first of equals."""
    names = {record.file_name for record in records}
    return max(folders, key=lambda folder: len(names & {p.name for p in folder.iterdir()}))


def check_digest(path: Path, published: Published) -> None:
    """Raise :class:`DataError` unless this is the published file, byte for byte."""
    digest = file_digest(path)
    if digest != published.sha256:
        raise DataError(
            f"{path}: not the published file (its SHA-256 starts with {digest[:12]}, not {published.sha256[:12]}); "
            "fetch it again from crowdhuman.org, or use it as it is by verify: false"
        )


def check_counts(path: Path, records: Sequence[Record], published: Published) -> None:
    """Raise :class:`DataError` unless there are as many images and persons as published."""
    persons = sum(not box.ignore for record in records for box in record.boxes)
    for what, count, expected in (("images", len(records), published.images), ("persons", persons, published.persons)):
        if expected is not None and count != expected:
            raise DataError(f"{path}: {count} {what}, published are {expected}; use it as it is by verify: false")
