"""Ways to spoil the tree of support/coco_tree.py, and what is said about each."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from support.coco_tree import NAMES, annotations_of, edit, image_of, write_image

Change = Callable[[Path], object]


def one(key: str, value: object, kind: str = "annotations", entry: int = 4) -> Change:
    """Set a key of an entry; ``...`` removes it."""

    def change(content: dict) -> None:
        if value is ...:
            del content[kind][entry][key]
        else:
            content[kind][entry][key] = value

    return lambda root: edit(annotations_of(root), change)


def every(change: Callable[[dict], object], split: str = "train") -> Change:
    return lambda root: edit(annotations_of(root, split), lambda content: [change(a) for a in content["annotations"]])


def corners(entry: dict) -> None:
    x, y, w, h = entry["bbox"]
    entry["bbox"] = [x, y, x + w, y + h]


def appended(kind: str, entry: object) -> Change:
    return lambda root: edit(annotations_of(root), lambda content: content[kind].append(entry))


def whole(**lists: object) -> Change:
    return lambda root: edit(annotations_of(root), lambda content: content.update(lists))


def linked(root: Path) -> None:
    """An image that is a link to one of another place."""
    write_image(root.parent / "elsewhere" / "a.png")
    image_of(root).unlink()
    image_of(root).symlink_to(root.parent / "elsewhere" / "a.png")


def linked_from_a_linked_folder(root: Path) -> None:
    """A folder of another place may be linked, but not what its links lead to."""
    write_image(root.parent / "third" / "a.png")
    (root.parent / "elsewhere").mkdir()
    (root.parent / "elsewhere" / "a.png").symlink_to(root.parent / "third" / "a.png")
    (root / NAMES["train"] / "cam0").symlink_to(root.parent / "elsewhere")
    one("file_name", "cam0/a.png", "images", 0)(root)


def in_other_case(root: Path) -> None:
    image_of(root).rename(image_of(root).with_name("Train0.PNG"))


def folder_in_other_case(root: Path) -> None:
    (image_of(root).parent / "Cam0").mkdir()
    image_of(root).rename(image_of(root).parent / "Cam0" / "a.JPG")
    one("file_name", "cam0/a.jpg", "images", 0)(root)


def cut(share: float) -> Change:
    return lambda root: os.truncate(image_of(root), int(share * image_of(root).stat().st_size))


def of_kind(suffix: str, image: Image.Image) -> Change:
    """The first image is this one, of another kind of file."""

    def change(root: Path) -> None:
        image.save(image_of(root).with_suffix(suffix))
        one("file_name", image_of(root).with_suffix(suffix).name, "images", 0)(root)

    return change


def turned(root: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    write_image(image_of(root).with_suffix(".jpg"), exif=exif)
    one("file_name", image_of(root).with_suffix(".jpg").name, "images", 0)(root)


#: what is wrong; what the line says of kind, count and place; the remedy; whether it may be left out
BAD: dict[str, tuple[Change, str, str, bool]] = {
    # entries
    "an image that is text": (
        appended("images", "train0.png"),
        "1 entries that are no JSON objects (entry 5 of 'images'",
        "delete them",
        False,
    ),
    "no image id": (
        one("id", ..., "images", 1),
        "1 entries without a whole number as id (entry 2 of 'images')",
        "number them from 1 on",
        False,
    ),
    "text image id": (one("id", "10", "images", 0), "(entry 1 of 'images': id '10')", "number them", False),
    "float image id": (one("id", 1.5, "images", 0), "(entry 1 of 'images': id 1.5)", "number them", False),
    "negative image id": (one("id", -1, "images", 0), "(entry 1 of 'images': id -1)", "number them", False),
    "huge image id": (one("id", 2**70, "images", 0), f"(entry 1 of 'images': id {2**70})", "number them", False),
    "double image id": (
        one("id", 10, "images", 2),
        "1 double ids (entry 3 of 'images': id 10 was there before)",
        "number them anew",
        False,
    ),
    "no file_name": (
        one("file_name", ..., "images", 2),
        "1 images without a file_name (entry 3 of 'images'",
        "name the file of each image",
        False,
    ),
    "null file_name": (one("file_name", None, "images", 2), "1 images without a file_name", "name the file", False),
    "double category id": (
        one("id", 3, "categories", 1),
        "1 double ids (entry 2 of 'categories': id 3 was there before)",
        "number them anew",
        False,
    ),
    "no category id": (one("id", ..., "categories", 1), "(entry 2 of 'categories')", "number them from 1 on", False),
    "text category id": (one("id", "3", "categories", 0), "(entry 1 of 'categories': id '3')", "number them", False),
    "float category id": (one("id", 3.5, "categories", 0), "(entry 1 of 'categories': id 3.5)", "number them", False),
    "negative category id": (one("id", -3, "categories", 0), "(entry 1 of 'categories': id -3)", "number them", False),
    "huge category id": (one("id", 2**70, "categories", 0), f"(entry 1 of 'categories': id {2**70})", "number", False),
    "no category name": (
        one("name", ..., "categories", 1),
        "1 categories without a name (entry 2 of 'categories'",
        "give each category a name",
        False,
    ),
    "double category name": (
        one("name", "a", "categories", 1),
        "1 double names of categories (entry 2 of 'categories': 'a' was there before)",
        "join these categories or rename one",
        False,
    ),
    "no categories": (whole(categories=[]), "the list 'categories' is empty", "is this a COCO instances file?", False),
    "test-dev, which has no annotations": (
        lambda root: edit(annotations_of(root), lambda content: content.pop("annotations")),
        "no list 'annotations'",
        "is this a COCO instances file?",
        False,
    ),
    "empty train": (whole(images=[], annotations=[]), "the list 'images' is empty", "is this a COCO", False),
    # boxes
    "text box": (
        one("bbox", "4 4 20 10"),
        "1 boxes that are not four numbers (annotation 5: bbox 4 4 20 10)",
        "boxes are [x, y, width, height]",
        True,
    ),
    "null box": (one("bbox", None), "(annotation 5: bbox None)", "boxes are [x, y, width, height]", True),
    "no box": (one("bbox", ...), "(annotation 5: bbox None)", "boxes are [x, y, width, height]", True),
    "short box": (one("bbox", [1, 2, 3]), "(annotation 5: bbox [1, 2, 3])", "boxes are", True),
    "texts in a box": (one("bbox", ["1", 2, 3, 4]), "1 boxes that are not four numbers", "boxes are", True),
    "NaN": (one("bbox", [1, 2, math.nan, 4]), "(annotation 5: bbox [1, 2, nan, 4])", "boxes are", True),
    "infinite": (one("bbox", [1, 2, math.inf, 4]), "(annotation 5: bbox [1, 2, inf, 4])", "boxes are", True),
    "negative box": (
        one("bbox", [24, 14, -20, -10]),
        "1 boxes of negative size (annotation 5: bbox [24, 14, -20, -10])",
        "x and y of the upper left corner",
        True,
    ),
    "zero box": (
        one("bbox", [24, 14, 0, 10]),
        "1 boxes without area (annotation 5: bbox [24, 14, 0, 10])",
        "delete these annotations",
        True,
    ),
    "box of half a pixel": (
        one("bbox", [24, 14, 10, 0.5]),
        "1 boxes less than a pixel wide or high (annotation 5: bbox [24, 14, 10, 0.5])",
        "boxes are in pixels and not in shares of the image",
        True,
    ),
    "box outside": (
        one("bbox", [65, 4, 20, 10]),
        "1 boxes outside of their image (annotation 5: bbox [65, 4, 20, 10], image 11 is 64 x 48)",
        "in pixels of the image",
        True,
    ),
    "xyxy": (
        every(corners),
        "8 of 12 boxes leave their images (first: annotation 2: bbox [30, 20, 50.5, 40]) and look like [x1, y1, x2",
        "write them as [x, y, width, height]",
        False,
    ),
    # what else annotations say
    "text area": (one("area", "200"), "(annotation 5: area '200')", "they are computed from the boxes then", True),
    "negative area": (one("area", -5), "1 areas that are no positive numbers", "mend the areas", True),
    "NaN area": (one("area", math.nan), "(annotation 5: area nan)", "mend the areas", True),
    "text iscrowd": (
        one("iscrowd", "0"),
        "1 iscrowd that is neither 0 nor 1 (annotation 5: iscrowd '0')",
        "1 for a region to ignore, 0 for an object",
        True,
    ),
    "text ignore": (
        one("ignore", "0"),
        "1 ignore that is neither 0 nor 1 (annotation 5: ignore '0')",
        "1 for a region to ignore, 0 for an object",
        True,
    ),
    "no image of an annotation": (
        one("image_id", ...),
        "1 annotations of no image that is listed (annotation 5: image_id None)",
        "list the images or delete the annotations",
        True,
    ),
    "no category of an annotation": (
        one("category_id", ...),
        "1 annotations of no category that is listed (annotation 5: category_id None)",
        "list the categories or delete the annotations",
        True,
    ),
    "unknown image": (
        one("image_id", 999),
        "1 annotations of no image that is listed (annotation 5: image_id 999)",
        "list the images or delete the annotations",
        True,
    ),
    "text category": (
        one("category_id", "3"),
        "1 annotations of no category that is listed (annotation 5: category_id '3')",
        "list the categories or delete the annotations",
        True,
    ),
    # files of images
    "missing image": (
        lambda root: image_of(root).unlink(),
        "1 missing images (image 10 (train0.png))",
        "copy the files or mend file_name",
        True,
    ),
    "ending in other case": (
        in_other_case,
        "1 missing images (image 10 (train0.png): there is Train0.PNG)",
        "copy the files or mend file_name",
        True,
    ),
    "folder in other case": (
        folder_in_other_case,
        "1 missing images (image 10 (cam0/a.jpg): there is Cam0/a.JPG)",
        "copy the files or mend file_name",
        True,
    ),
    "name too long for a file": (
        one("file_name", "a" * 5000, "images", 0),
        f"1 missing images (image 10 ({'a' * 5000}))",
        "copy the files or mend file_name",
        True,
    ),
    "folder in the place of an image": (
        lambda root: [image_of(root).unlink(), image_of(root).mkdir()],
        "1 unreadable images (image 10 (train0.png): cannot be opened)",
        "fetch the files again",
        True,
    ),
    "empty image": (
        cut(0),
        "1 unreadable images (image 10 (train0.png): an empty file)",
        "fetch the files again",
        True,
    ),
    "HTML": (
        lambda root: image_of(root).write_text("<html>quota exceeded</html>"),
        "1 unreadable images (image 10 (train0.png): starts with b'<html>quota ')",
        "fetch the files again",
        True,
    ),
    "cut image": (cut(0.7), "1 truncated images (image 10 (train0.png))", "fetch the files again", True),
    "cut header": (cut(0.001), "1 unreadable images (image 10 (train0.png): starts with b'\\x89P", "fetch", True),
    "32 bits a channel": (
        of_kind(".tif", Image.new("F", (64, 48), 0.5)),
        "1 images of a kind that OpenCV does not decode (image 10 (train0.tif))",
        "write them as PNG or JPEG with 8 bits a channel",
        True,
    ),
    "kind of image that OpenCV does not know": (
        of_kind(".pcx", Image.new("RGB", (64, 48))),
        "1 images of a kind that OpenCV does not decode (image 10 (train0.pcx))",
        "write them as PNG or JPEG",
        True,
    ),
    "200 million pixels": (
        lambda root: Image.new("1", (20_000, 10_000)).save(image_of(root), compress_level=1),
        "1 images of more than 178 million pixels (image 10 (train0.png))",
        "cut them into smaller ones",
        True,
    ),
    "10,000 pixels wide and 99 high": (
        lambda root: write_image(image_of(root), (10_000, 99)),
        "1 images that are more than 100 times as long as wide (image 10 (train0.png))",
        "cut them into shorter ones",
        True,
    ),
    "1x1": (
        lambda root: write_image(image_of(root), (1, 1)),
        "1 images that are one pixel wide or high (image 10 (train0.png))",
        "delete them from the list",
        True,
    ),
    "size of another image": (
        lambda root: write_image(image_of(root), (128, 96)),
        "1 image sizes that disagree with the files (image 10 (train0.png): 64 x 48, but 128 x 96 when read)",
        "correct width and height, and the boxes where images were scaled",
        True,
    ),
    "turned by EXIF": (
        turned,
        "1 photographs that their EXIF entry turns (image 10 (train0.jpg): 64 x 48, but 48 x 64 when read)",
        "delete the entries (exiftool -Orientation=)",
        True,
    ),
    # paths
    "path upwards": (
        one("file_name", "../val2017/val0.png", "images", 0),
        "1 file names that lead out of the images' folder (entry 1 of 'images': '../val2017/val0.png')",
        "name files by paths below it",
        False,
    ),
    "path upwards by a folder": (
        one("file_name", "a/../../val2017/val0.png", "images", 0),
        "1 file names that lead out",
        "name files",
        False,
    ),
    "absolute path": (one("file_name", "/etc/passwd", "images", 0), "'/etc/passwd'", "name files by paths", False),
    "half of a character": (
        one("file_name", "\ud800.png", "images", 0),
        r"1 file names that lead out of the images' folder (entry 1 of 'images': '\ud800.png')",
        "name files",
        False,
    ),
    "path upwards of Windows": (
        one("file_name", "..\\val2017\\val0.png", "images", 0),
        "1 file names that lead out",
        "name files",
        False,
    ),
    "link out of the root": (linked, "(train0.png: lies in ", "copy what is linked to from there", False),
    "link out of a linked folder": (
        linked_from_a_linked_folder,
        "(cam0/a.png: lies in ",
        "copy what is linked",
        False,
    ),
}
