"""Data sets of other formats than COCO's: what their readers give, and the COCO tree that is made of it.

A reader (:mod:`benchmark.data.voc`) says what its files say, a :class:`Photo` an image. What becomes of what is odd in
it is decided here, once for all formats: it is left out, clipped or kept, and in any case counted.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from benchmark.data.coco_check import DISAGREES, ESCAPES, EXIF, NO_AREA, OUTSIDE, TINY
from benchmark.data.faults import LIMIT, DataError, Faults
from benchmark.data.image_names import image_names, leads_out
from benchmark.data.image_sizes import PROBLEMS, TURNED, Header, look
from benchmark.experiment.datasets import LAYOUT

NOT_NUMBERS, REVERSED = "boxes that are not four numbers", "boxes whose corners are swapped"
BEYOND, UNKNOWN, TWICE = "boxes that reach out of their images", "objects of unknown classes", "objects listed twice"
DIFFICULT, TRUNCATED = "difficult objects", "truncated objects"
RENAMED, AGAIN = "annotations that name another file", "images annotated twice"
EMPTY, BARE, UNSPLIT = "images without objects", "images without annotations", "images of neither split"
NOBODY = "names in split files that no image has"
#: what becomes of what is odd
LEFT_OUT, CHANGED, KEPT = "left out", "changed", "kept"
FATE = {
    **dict.fromkeys((*PROBLEMS, ESCAPES, EXIF, DISAGREES, AGAIN, BARE, UNSPLIT, NOBODY), LEFT_OUT),
    **dict.fromkeys((NOT_NUMBERS, NO_AREA, TINY, REVERSED, OUTSIDE, UNKNOWN, TWICE), LEFT_OUT),
    BEYOND: f"{CHANGED}: clipped",
    RENAMED: f"{CHANGED}: the image of the annotation's own name was taken",
    DIFFICULT: f"{CHANGED}: regions to ignore (iscrowd)",
    TRUNCATED: KEPT,
    EMPTY: KEPT,
}
#: suffixes of image files, in lower case
IMAGES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}
#: what a box may reach out of its image without a word, pixels: shares of a side are written with six digits
ROUNDING = 0.01
Corners = tuple[float, float, float, float]


@dataclass(frozen=True)
class Thing:
    """An object as its file has it."""

    label: str
    #: x1, y1, x2, y2 of the box's edges, pixels from the upper left corner of the image; None: not four numbers
    box: Corners | None
    #: where it stands in its file: ``object 3``, ``line 7``
    place: str
    #: a region that neither teaches nor counts
    ignore: bool = False


@dataclass(frozen=True)
class Photo:
    """An image as its annotation has it."""

    #: of its file, relative to the folder of all images, with ``/``
    name: str
    #: the file that describes it
    source: Path
    things: tuple[Thing, ...]
    #: width and height that are said of it, pixels; None: nothing is said
    size: tuple[int, int] | None = None


def image_files(folder: Path) -> list[str]:
    """Names of all images below a folder, relative to it."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; give the one that holds the images")
    found = (path for path in folder.rglob("*") if path.suffix.lower() in IMAGES and path.is_file())
    return sorted(path.relative_to(folder).as_posix() for path in found)


def corners(values: Sequence[str | None]) -> Corners | None:
    """Four numbers of a possible size from their texts, or None."""
    try:
        box = tuple(map(float, values))
    except (TypeError, ValueError):
        return None
    return box if len(box) == 4 and all(math.isfinite(n) and abs(n) < LIMIT for n in box) else None


def said_size(width: str, height: str) -> tuple[int, int] | None:
    """Width and height from their texts, as far as they are said: some tools write 0."""
    size = tuple(int(text) if text.isdecimal() else 0 for text in (width, height))
    return size if all(size) else None


def source_of(photo: Photo, faults: Faults) -> str:
    """The file that describes an image, as a place of these faults."""
    path = photo.source
    return path.relative_to(faults.path).as_posix() if faults.path in path.parents else path.name


def sound(photo: Photo, header: Header, classes: Sequence[str], faults: Faults) -> list[tuple[Thing, Corners]]:
    """The objects of an image that can be used, with boxes inside of it; notes what is odd about the others."""
    kept, seen, source = [], set(), source_of(photo, faults)
    for thing in photo.things:
        place, box = f"{source}: {thing.place}", thing.box
        if thing.label not in classes:
            faults.add(UNKNOWN, place, repr(thing.label))
            continue
        if box is None:
            faults.add(NOT_NUMBERS, place, thing.label)
            continue
        inside = (max(box[0], 0.0), max(box[1], 0.0), min(box[2], header.width), min(box[3], header.height))
        sides, what = (box[2] - box[0], box[3] - box[1]), f"{thing.label} {[f'{n:g}' for n in box]}".replace("'", "")
        if min(sides) < 0:
            faults.add(REVERSED, place, what)
        elif min(sides) == 0:
            faults.add(NO_AREA, place, what)
        elif inside[0] >= inside[2] or inside[1] >= inside[3]:
            faults.add(OUTSIDE, place, f"{what} in {header.width} x {header.height}")
        elif min(inside[2] - inside[0], inside[3] - inside[1]) < 1:
            faults.add(TINY, place, what)
        elif (thing.label, box) in seen:
            faults.add(TWICE, place, what)
        else:
            if max(abs(own - given) for own, given in zip(inside, box, strict=True)) > ROUNDING:
                faults.add(BEYOND, place, f"{what} in {header.width} x {header.height}")
            seen.add((thing.label, box))
            kept.append((thing, inside))
    return kept


def usable(photos: Sequence[Photo], images: Path, faults: Faults) -> list[tuple[Photo, Header]]:
    """Photos whose image files are there, whole, and of the size that is said of them; notes the others."""
    first: dict[str, Photo] = {}
    for photo in photos:
        source = source_of(photo, faults)
        if leads_out(photo.name):
            faults.add(ESCAPES, source, repr(photo.name))
        elif photo.name in first:
            faults.add(AGAIN, source, f"{photo.name} stands in {source_of(first[photo.name], faults)}")
        else:
            first[photo.name] = photo
    for name in image_names(first, images, images)[1]:
        faults.add(ESCAPES, source_of(first.pop(name), faults), f"{name} lies in {(images / name).resolve().parent}")
    headers, problems = look({name: images / name for name in first})
    kept = []
    for name, photo in first.items():
        if name not in headers:
            faults.add(problems[name], source_of(photo, faults), name)
            continue
        header = headers[name]
        # boxes are of the picture as the annotator saw it: where that was another size, nobody knows where they lie
        if photo.size not in (None, header.size):
            turned = header.orientation >= TURNED and photo.size == header.size[::-1]
            said, read = (f"{width} x {height}" for width, height in (photo.size, header.size))
            faults.add(EXIF if turned else DISAGREES, source_of(photo, faults), f"{said}, but {read} when read")
            continue
        kept.append((photo, header))
    for name in sorted(set(image_files(images)) - {photo.name for photo in photos}):
        faults.add(BARE, name)
    return kept


def is_val(name: str, share: float) -> bool:
    """Whether a name falls into a share of all names; what other names there are does not matter."""
    number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    return number < share * 2**64


class _Part:
    """The images that a file of names lists or that a folder holds."""

    def __init__(self, path: Path) -> None:
        self.path, self.names, self.used = path, set(), set()
        if path.is_file():
            self.names = {line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()}
        elif not path.is_dir():
            raise DataError(f"{path}: neither a number nor a file of names nor a folder; --split takes one of these")

    def has(self, photo: Photo, images: Path) -> bool:
        if self.path.is_dir():
            folder, files = self.path.resolve(), (photo.source, images / photo.name)
            return any(folder in file.resolve().parents for file in files)
        whole = PurePosixPath(photo.name)
        forms = {photo.name, whole.with_suffix("").as_posix(), whole.name, whole.stem} & self.names
        self.used |= forms
        return bool(forms)


def split_photos(photos: Sequence[Photo], images: Path, asked: Sequence[str], faults: Faults) -> dict[str, set[str]]:
    """Names of the images of ``train`` and ``val``.

    Args:
        photos: all of the set.
        images: their folder.
        asked: a share of the images for val, by a hash of their names; or val, or train and val, each a file of image
            names (with or without folder and suffix) or a folder of images or annotations. What is in neither is left
            out; with one, train is the rest.
        faults: notes what is in neither.

    Raises:
        DataError: one of them is empty, or an image is in both.
    """
    names = {photo.name for photo in photos}
    try:
        share = float(asked[0])
    except ValueError:
        parts = [_Part(Path(one).expanduser()) for one in asked]
        found = [{photo.name for photo in photos if part.has(photo, images)} for part in parts]
        for part in parts:
            for name in sorted(part.names - part.used):
                faults.add(NOBODY, part.path.name, name)
        train, val = found if len(found) == 2 else (names - found[0], found[0])
    else:
        val = {name for name in names if is_val(name, share)}
        train = names - val
    given = f"--split {' '.join(asked)}"
    if both := sorted(train & val):
        raise DataError(f"{given}: {len(both)} images are in both (first: {both[0]}); delete them in one")
    for name, part in (("train", train), ("val", val)):
        if not part:
            raise DataError(f"{given}: no image is in {name}; give another share or the set's own files")
    for name in sorted(names - train - val):
        faults.add(UNSPLIT, name)
    return {"train": train, "val": val}


def to_coco(photos: Sequence[tuple[Photo, Header, list[tuple[Thing, Corners]]]], classes: Sequence[str]) -> dict:
    """COCO's content, ids from 1 in the order that is given."""
    images, annotations = [], []
    for photo, header, things in photos:
        images.append({"id": len(images) + 1, "file_name": photo.name, "width": header.width, "height": header.height})
        for thing, (x1, y1, x2, y2) in things:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": len(images),
                    "category_id": classes.index(thing.label) + 1,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": int(thing.ignore),
                }
            )
    categories = [{"id": number, "name": name} for number, name in enumerate(classes, start=1)]
    return {"images": images, "annotations": annotations, "categories": categories}


def place(source: Path, target: Path, copy: bool) -> None:
    """A hard link to a file, or a copy of it where there can be none."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        if copy:
            raise OSError
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)


def told(faults: Faults) -> list[str]:
    """What was odd, a line for each thing that became of it."""
    lines = []
    for fate in dict.fromkeys(FATE.values()):
        if kinds := [kind for kind in faults.found if FATE[kind] == fate]:
            lines.append(f"{fate}: {faults.told(kinds)}")
    return lines


def write_tree(
    photos: Sequence[Photo],
    images: Path,
    out: Path,
    split: Sequence[str],
    faults: Faults,
    classes: Sequence[str] = (),
    copy: bool = False,
) -> dict[str, dict]:
    """Write a COCO tree: images, annotations, and ``oddities.txt`` with all that was odd.

    Args:
        photos: what the reader gave.
        images: folder of the images.
        out: folder to write; must not be there, or be empty.
        split: see :func:`split_photos`.
        faults: with what the reader noted.
        classes: in the order of their ids; none: all that occur, by the alphabet.
        copy: copy images instead of linking them.

    Returns:
        COCO's content by split.

    Raises:
        DataError: nothing can be made of it.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out}: is there already; delete it or name another folder by --out")
    classes = tuple(classes) or tuple(sorted({thing.label for photo in photos for thing in photo.things} - {""}))
    kept = [(photo, header, sound(photo, header, classes, faults)) for photo, header in usable(photos, images, faults)]
    if not any(things for _, _, things in kept):
        raise DataError(f"{faults.path}: no object is left; {'; '.join(told(faults)) or 'is it the right folder?'}")
    for photo, _, things in kept:
        if not things:
            faults.add(EMPTY, photo.name)
    parts = split_photos([photo for photo, _, _ in kept], images, split, faults)
    contents = {}
    for name, (file, folder) in LAYOUT.items():
        chosen = sorted((one for one in kept if one[0].name in parts[name]), key=lambda one: one[0].name)
        for photo, _, _ in chosen:
            place(images / photo.name, out / folder / photo.name, copy)
        contents[name] = to_coco(chosen, classes)
        (out / file).parent.mkdir(parents=True, exist_ok=True)
        (out / file).write_text(json.dumps(contents[name]), encoding="utf-8")
    lines = [f"{kind}: {where}{what and f': {what}'}" for kind, all_ in faults.found.items() for where, what in all_]
    (out / "oddities.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return contents
