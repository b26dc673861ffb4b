"""COCO annotation files, checked once for all: what is absent is computed, the rest is a fault with file and entry.

mmdet and pycocotools check nothing. By how a file is made, they stop in the middle of a training, pass over objects
there and count them in the evaluation, or take a file's numbers for others. What can be computed is: areas,
``iscrowd``, ids of annotations, and sizes of images from their files (:mod:`benchmark.data.checks`).
"""

from __future__ import annotations

import contextlib
import io
import json
import math
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from benchmark.data.faults import SKIP, DataError, Faults, xywh
from benchmark.data.image_names import leads_out
from benchmark.data.image_sizes import CUT, FORBIDDEN, FOREIGN, HUGE, LINE, MISSING, STRIP, UNREADABLE
from pgd.evaluation.matching import fast

# Of these nothing can be left out: entries refer to each other by them.
NO_OBJECT, NO_ID, DOUBLE_ID = "entries that are no JSON objects", "entries without a whole number as id", "double ids"
NO_NAME, DOUBLE_NAME = "categories without a name", "double names of categories"
NO_FILE, ESCAPES = "images without a file_name", "file names that lead out of the images' folder"
FATAL = (NO_OBJECT, NO_ID, DOUBLE_ID, NO_NAME, DOUBLE_NAME, NO_FILE, ESCAPES)
# Annotations with these may be left out, in training and evaluation alike.
NO_IMAGE, NO_CATEGORY = "annotations of no image that is listed", "annotations of no category that is listed"
BROKEN_BOX, NEGATIVE, NO_AREA = "boxes that are not four numbers", "boxes of negative size", "boxes without area"
#: mmdet trains on none of these, pycocotools counts them as missed
TINY = "boxes less than a pixel wide or high"
OUTSIDE, BAD_AREA = "boxes outside of their image", "areas that are no positive numbers"
BAD_CROWD, BAD_IGNORE = "iscrowd that is neither 0 nor 1", "ignore that is neither 0 nor 1"
# So may images with these, or that are missing or broken, and their annotations with them.
EXIF, DISAGREES = "photographs that their EXIF entry turns", "image sizes that disagree with the files"
REMEDIES = {
    NO_OBJECT: "delete them",
    NO_ID: "number them from 1 on, as integers",
    DOUBLE_ID: "number them anew, and the annotations that refer to them",
    NO_NAME: "give each category a name",
    DOUBLE_NAME: "join these categories or rename one",
    NO_FILE: "name the file of each image, relative to the images' folder",
    ESCAPES: "name files by paths below it, and copy what is linked to from there",
    NO_IMAGE: "list the images or delete the annotations",
    NO_CATEGORY: "list the categories or delete the annotations",
    BROKEN_BOX: "boxes are [x, y, width, height] in pixels",
    NEGATIVE: "boxes are [x, y, width, height] in pixels, x and y of the upper left corner",
    NO_AREA: "delete these annotations",
    TINY: "boxes are in pixels and not in shares of the image; mmdet trains on none of this size",
    OUTSIDE: "boxes are [x, y, width, height] in pixels of the image; mend or delete them",
    BAD_AREA: "mend the areas, or delete them: they are computed from the boxes then",
    BAD_CROWD: "iscrowd is a number: 1 for a region to ignore, 0 for an object",
    BAD_IGNORE: "ignore is a number: 1 for a region to ignore, 0 for an object",
    MISSING: "copy the files or mend file_name, which starts from the images' folder",
    FORBIDDEN: "let this user read them (chmod u+r, and u+x of their folders)",
    UNREADABLE: "fetch the files again",
    CUT: "fetch the files again",
    FOREIGN: "write them as PNG or JPEG with 8 bits a channel",
    HUGE: "cut them into smaller ones, and the boxes with them",
    STRIP: "cut them into shorter ones, and the boxes with them",
    LINE: "delete them from the list",
    EXIF: "delete the entries (exiftool -Orientation=): sizes and boxes are of the pictures as they are stored",
    DISAGREES: "correct width and height, and the boxes where images were scaled",
}
#: COCO's own training file has a few of these among 860,001: so rarely, they are left out and counted unasked.
RARE, RARE_SHARE = (NO_AREA, TINY, OUTSIDE), 1 / 1000
# what can be computed, in words of its own
AREAS, CROWDS, IDS = "areas (from the boxes)", "iscrowd (0)", "ids of annotations (numbered anew)"
IGNORED, MARK = "ignore (taken for iscrowd)", "mark of the byte order (removed)"
UNREAD = "file with unusual fields that nobody reads (removed)"
#: What is read of an entry. For the rest hotcoco demands the types that COCO itself has: exports of many tools differ.
USED = {
    "images": ("id", "file_name", "width", "height"),
    "annotations": ("id", "image_id", "category_id", "bbox", "area", "iscrowd"),
    "categories": ("id", "name"),
}


def is_id(value: object) -> bool:
    """Whether all readers take this for an id."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53


def has_size(image: dict) -> bool:
    """Whether an image has a width and a height."""
    return all(is_id(image.get(key)) and image[key] > 0 for key in ("width", "height"))


class Annotations:
    """The checked content of a file, without the annotations that had a fault.

    Raises:
        DataError: this is no COCO file, or one in which something is wrong that cannot be left out.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.faults = Faults(path, REMEDIES)
        #: how often something was computed or mended, by what it was
        self.computed: Counter[str] = Counter()
        self.content = self._read()
        self._check_entries()
        self.faults.refuse(FATAL)
        self._ids = {image["id"] for image in self.images}
        self._category_ids = {category["id"] for category in self.content["categories"]}
        #: before anything was left out
        self.total = len(self.content["annotations"])
        self.content["annotations"] = [a for a in self.content["annotations"] if self._is_sound(a)]
        self._number()

    @property
    def images(self) -> list[dict]:
        return self.content["images"]

    @property
    def changed(self) -> bool:
        """Whether the content is another than that of the file."""
        return bool(self.computed or self.faults.found)

    def told_computed(self) -> str:
        """``48 areas (from the boxes), 12 image sizes (from the files)``."""
        return ", ".join(f"{count} {what}" for what, count in self.computed.items())

    def _read(self) -> dict:
        try:
            data = self.path.read_bytes()
            content = json.loads(data.decode("utf-8-sig"))
        except FileNotFoundError:
            raise DataError(f"{self.path}: missing") from None
        except PermissionError as error:
            raise DataError(f"{self.path}: {error.strerror}; let this user read it (chmod u+r)") from None
        except (OSError, ValueError, RecursionError) as error:  # not JSON, or not even text
            what = f"not valid JSON, probably truncated ({error})"
            raise DataError(f"{self.path}: {what}; fetch it again") from None
        if data.startswith(b"\xef\xbb\xbf"):
            self.computed[MARK] += 1
        for key in USED:
            if not isinstance(content, dict) or not isinstance(content.get(key), list):
                raise DataError(f"{self.path}: no list '{key}'; is this a COCO instances file?")
            if not content[key] and key != "annotations":
                raise DataError(f"{self.path}: the list '{key}' is empty; is this a COCO instances file?")
        return content

    def _check_entries(self) -> None:
        """Images and categories, and the kind of everything."""
        for kind in USED:
            seen: set[int] = set()
            for number, entry in enumerate(self.content[kind], start=1):
                place = f"entry {number} of '{kind}'"
                if not isinstance(entry, dict):
                    self.faults.add(NO_OBJECT, place, repr(entry)[:40])
                    continue
                # those of annotations can be numbered anew: nothing refers to them
                if kind == "annotations":
                    continue
                if not is_id(entry.get("id")):
                    self.faults.add(NO_ID, place, f"id {entry['id']!r}" if "id" in entry else "")
                elif entry["id"] in seen:
                    self.faults.add(DOUBLE_ID, place, f"id {entry['id']} was there before")
                else:
                    seen.add(entry["id"])
                if kind == "images":
                    self._check_name(entry, place)
        names: set[str] = set()
        for number, category in enumerate(self.content["categories"], start=1):
            name, place = isinstance(category, dict) and category.get("name"), f"entry {number} of 'categories'"
            if not isinstance(name, str) or not name:
                self.faults.add(NO_NAME, place, str(category)[:60])
            elif name in names:
                self.faults.add(DOUBLE_NAME, place, f"'{name}' was there before")
            else:
                names.add(name)

    def _check_name(self, image: dict, place: str) -> None:
        name = image.get("file_name")
        if not isinstance(name, str) or not name:
            self.faults.add(NO_FILE, place, str(image)[:60])
        elif leads_out(name):
            self.faults.add(ESCAPES, place, repr(name))

    def _is_sound(self, entry: dict) -> bool:
        """Whether an annotation can be used; computes what it lacks."""
        box = xywh(entry.get("bbox"))
        kind, what = None, ""
        if not _within(entry.get("image_id"), self._ids):
            kind, what = NO_IMAGE, f"image_id {entry.get('image_id')!r}"
        elif not _within(entry.get("category_id"), self._category_ids):
            kind, what = NO_CATEGORY, f"category_id {entry.get('category_id')!r}"
        elif box is None:
            kind, what = BROKEN_BOX, f"bbox {str(entry.get('bbox'))[:60]}"
        elif min(box[2:]) < 0:
            kind, what = NEGATIVE, f"bbox {list(box)}"
        elif min(box[2:]) == 0:
            kind, what = NO_AREA, f"bbox {list(box)}"
        elif min(box[2:]) < 1:
            kind, what = TINY, f"bbox {list(box)}"
        elif (area := entry.get("area") or 0) != 0 and not _is_positive(area):
            kind, what = BAD_AREA, f"area {area!r}"
        elif (entry.get("iscrowd") or 0) not in (0, 1):
            kind, what = BAD_CROWD, f"iscrowd {entry['iscrowd']!r}"
        elif (entry.get("ignore") or 0) not in (0, 1):
            kind, what = BAD_IGNORE, f"ignore {entry['ignore']!r}"
        if kind:
            self.faults.add(kind, f"annotation {entry.get('id')}", what)
            return False
        if not area:
            entry["area"] = box[2] * box[3]
            self.computed[AREAS] += 1
        if entry.get("iscrowd") is None:
            entry["iscrowd"] = 0
            self.computed[CROWDS] += 1
        # mmdet leaves these out of trainings, pycocotools takes them for objects
        if entry.get("ignore"):
            entry["iscrowd"] = 1
            del entry["ignore"]
            self.computed[IGNORED] += 1
        return True

    def _number(self) -> None:
        """Ids that pycocotools can tell apart."""
        entries = self.content["annotations"]
        ids = [entry.get("id") for entry in entries]
        if all(map(is_id, ids)) and len(set(ids)) == len(ids):
            return
        for number, entry in enumerate(entries, start=1):
            entry["id"] = number
        self.computed[IDS] = len(entries)

    def bare(self) -> dict:
        """What is used of the content, which every reader takes."""
        return {
            kind: [{key: entry[key] for key in keys if key in entry} for entry in self.content[kind]]
            for kind, keys in USED.items()
        }

    def look_for_unusual(self) -> None:
        """Whether hotcoco, where it is installed, reads the file as it is."""
        if fast is not None and not self.changed:
            try:
                with contextlib.redirect_stdout(io.StringIO()):  # it tells how long it takes
                    fast.COCO(str(self.path))
            except Exception:  # of another language: its errors are of no one kind
                self.computed[UNREAD] += 1

    def leave_out(self, images: Iterable[int]) -> int:
        """Remove images and their annotations; how many annotations these were."""
        gone, before = set(images), len(self.content["annotations"])
        if gone:
            self.content["images"] = [i for i in self.images if i["id"] not in gone]
            self.content["annotations"] = [a for a in self.content["annotations"] if a["image_id"] not in gone]
        return before - len(self.content["annotations"])

    def check_places(self) -> None:
        """Leave out boxes outside of their images, as far as their sizes are known.

        Raises:
            DataError: most boxes leave their images, but would be inside if they were ``[x1, y1, x2, y2]``.
        """
        sizes = {i["id"]: (i["width"], i["height"]) for i in self.images if has_size(i)}
        beyond, corners, first, kept = 0, 0, None, []
        for entry in self.content["annotations"]:
            width, height = sizes.get(entry["image_id"], (math.inf, math.inf))
            x, y, w, h = entry["bbox"]
            corners += x < w <= width + 1 and y < h <= height + 1
            # a pixel more or less is a matter of rounding
            if x + w > width + 1 or y + h > height + 1:
                beyond, first = beyond + 1, first or entry
            if x >= width or y >= height or x + w <= 0 or y + h <= 0:
                size = f"image {entry['image_id']} is {width} x {height}"
                self.faults.add(OUTSIDE, f"annotation {entry['id']}", f"bbox {entry['bbox']}, {size}")
            else:
                kept.append(entry)
        count = len(self.content["annotations"])
        if beyond > count / 2 and corners > 0.95 * count:
            raise DataError(
                f"{self.path}: {beyond} of {count} boxes leave their images (first: annotation {first['id']}: bbox "
                f"{first['bbox']}) and look like [x1, y1, x2, y2]; write them as [x, y, width, height]"
            )
        self.content["annotations"] = kept

    def settle(self, broken: str, hint: str = SKIP) -> None:
        """Refuse what has faults, or say what was left out; rare ones that COCO itself has are no reason to refuse."""
        rare = {kind for kind in RARE if self.faults.count(kind) <= RARE_SHARE * self.total}
        self.faults.settle(broken, rare, hint)


def _within(value: object, known: set[int]) -> bool:
    return is_id(value) and value in known


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf
