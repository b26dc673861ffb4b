"""Reads Pascal VOC: an XML file an image, as the VOC challenges and annotation tools (LabelImg, CVAT) write it.

Format: host.robots.ox.ac.uk/pascal/VOC/voc2012/htmldoc, section "Annotation".
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Literal
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import parse

from benchmark.data.faults import DataError, Faults
from benchmark.data.foreign import DIFFICULT, RENAMED, TRUNCATED, Photo, Thing, corners, image_files, said_size
from benchmark.data.image_sizes import MISSING

#: what a box's sides are called
SIDES = ("xmin", "ymin", "xmax", "ymax")


def _root(path: Path) -> Element:
    """The element that a file is. Entities are refused, so that no file can have others read, or grow without end."""
    try:
        root = parse(path).getroot()
    except ParseError as error:
        raise DataError(f"{path}: not valid XML ({error}); mend it or move it away") from None
    except DefusedXmlException:
        raise DataError(f"{path}: declares entities, which are not resolved; write out what they stand for") from None
    except (OSError, UnicodeError, ValueError, LookupError) as error:  # an unknown encoding is a LookupError
        raise DataError(f"{path}: cannot be read ({error}); mend it or move it away") from None
    if root.tag != "annotation":
        raise DataError(f"{path}: starts with <{root.tag}> and not <annotation>; is it a file of Pascal VOC?")
    return root


def _text(element: Element, path: str) -> str:
    return (element.findtext(path) or "").strip()


def _box(entry: Element, first_pixel: int) -> tuple[float, ...] | None:
    box = corners([entry.findtext(f"bndbox/{side}") for side in SIDES])
    # by the letter one pixel, but nobody draws such a box: it is left as it is, without area
    if box is None or box[2] <= box[0] or box[3] <= box[1]:
        return box
    return (box[0] - first_pixel, box[1] - first_pixel, box[2], box[3])


class Names:
    """Finds the image of an annotation below the images' folder."""

    def __init__(self, folder: Path) -> None:
        self.all = image_files(folder)
        self.stems: dict[PurePosixPath, list[str]] = {}
        for name in self.all:
            self.stems.setdefault(PurePosixPath(name).with_suffix(""), []).append(name)

    def of(self, annotation: PurePosixPath, said: str) -> str | None:
        """By the annotation's own name, then by the name that is said in it; in the same folder, then at the top."""
        folders = (annotation.parent, PurePosixPath())
        for folder in folders:
            if found := self.stems.get(folder / annotation.stem):
                beside = (folder / said).as_posix()
                return beside if beside in found else found[0]
        return next((name for folder in folders if (name := (folder / said).as_posix()) in self.all), None)


def read_voc(
    annotations: Path,
    images: Path,
    faults: Faults,
    first_pixel: Literal[0, 1] = 1,
    difficult: Literal["ignore", "keep"] = "ignore",
) -> list[Photo]:
    """The content of all XML files below a folder.

    Args:
        annotations: folder of the XML files.
        images: folder of the images, in the same folders below it or all at its top.
        faults: notes what is odd.
        first_pixel: 1, as VOC has it: pixels are counted from 1 and both ends are part of the box, so that an image of
            640 pixels reaches from 1 to 640; 0: edges from 0 to 640, as some tools write them.
        difficult: whether difficult objects are regions to ignore, as in VOC's evaluation, or objects like others.

    Raises:
        DataError: a file is no VOC file.
    """
    files = sorted(annotations.rglob("*.xml"))
    if not files:
        raise DataError(f"{annotations}: no XML file in it; give the folder of the annotations")
    names, photos = Names(images), []
    for path in files:
        root, own = _root(path), PurePosixPath(path.relative_to(annotations).as_posix())
        # tools write whole paths of their own machine
        said = PurePosixPath(_text(root, "filename").replace("\\", "/")).name
        name = names.of(own, said)
        if name is None:
            faults.add(MISSING, str(own), said)
            continue
        if said and PurePosixPath(said).stem not in (PurePosixPath(name).stem, PurePosixPath(name).name):
            faults.add(RENAMED, str(own), f"{said}, but {name} is there")
        things = []
        for number, entry in enumerate(root.findall("object"), start=1):
            label, place = _text(entry, "name"), f"object {number}"
            flags = {kind for kind in (DIFFICULT, TRUNCATED) if _text(entry, kind.split()[0]) == "1"}
            for kind in flags:
                if kind != DIFFICULT or difficult == "ignore":
                    faults.add(kind, f"{own}: {place}", label)
            ignored = DIFFICULT in flags and difficult == "ignore"
            things.append(Thing(label, _box(entry, first_pixel), place, ignored))
        size = said_size(_text(root, "size/width"), _text(root, "size/height"))
        photos.append(Photo(name, path, tuple(things), size))
    return photos
