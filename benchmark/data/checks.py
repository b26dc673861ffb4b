"""Unpacking archives, and checking a split of a COCO set: what is missing or broken is an error that names the file."""

from __future__ import annotations

import contextlib
import shutil
import zipfile
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from benchmark.data.coco_check import DISAGREES, ESCAPES, EXIF, Annotations, has_size
from benchmark.data.faults import DataError
from benchmark.data.image_names import image_names, linked_folders, near_names
from benchmark.data.image_sizes import MISSING, TURNED, UNREADABLE, Header, fingerprint, look

SIZES, NAMES = "image sizes (from the files)", "file names (in the disk's Unicode form)"
WITH_IMAGES = "annotations of images that were left out"
#: sides of images that ``filter_cfg`` of benchmark/configs/datasets/coco.py asks for, pixels
SMALL = 32


def unpack(archive: Path, target: Path) -> None:
    """Unpack a mini set, whose zip carries a checksum of every file."""
    if not archive.is_file():
        raise DataError(f"{archive}: missing; `dvc pull data` fetches it from the remote inside this repository")
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    try:
        with zipfile.ZipFile(archive) as content:
            for member in tqdm(content.infolist(), desc="unpacking", mininterval=2, leave=False):
                content.extract(member, target)
    # A damaged header may also ask for a method or a password that was never used.
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError) as error:
        shutil.rmtree(target, ignore_errors=True)
        raise DataError(
            f"{archive}: truncated or damaged ({error}); delete it and run `dvc pull --force data`"
        ) from None


@dataclass(frozen=True)
class Split:
    """A checked part of a set: COCO annotations, as a file and parsed, and the folder of its images."""

    annotations: Path
    images: Path
    content: dict
    #: how many images its file lists
    listed: int
    #: fingerprint of the images' files
    looked: bytes
    #: what was computed and left out, by what it was
    changes: dict[str, dict[str, int]] = field(default_factory=dict)


def check_split(
    annotations: Path,
    images: Path,
    broken: str = "refuse",
    limit: int | None = None,
    caches: Sequence[Path] = (),
    root: Path | None = None,
) -> Split:
    """Check that a split is whole: annotations by :mod:`benchmark.data.coco_check`, and that the files fit them.

    Args:
        annotations: COCO file.
        images: folder that its file names start from.
        broken: ``refuse``, or ``skip`` what has faults.
        limit: use the first images only.
        caches: where to remember what was seen of the images (:func:`benchmark.data.image_sizes.look`).
        root: links from the images' folder may lead to anything below this.

    Raises:
        DataError: with counts, first culprits and remedy.
    """
    found = Annotations(annotations)
    if not images.is_dir():
        raise DataError(f"{images}: no such folder, though {annotations} describes its images")
    listed = len(found.images)
    found.content = subset(found.content, limit) if limit else found.content
    names, outside = image_names((i["file_name"] for i in found.images), images, root or images)
    for name in outside:
        found.faults.add(ESCAPES, name, f"lies in {(images / names[name]).resolve().parent}")
    found.faults.refuse({ESCAPES})
    if linked := linked_folders(names.values(), images, root or images):
        first, target = next(iter(linked.items()))
        print(f"{images}: {len(linked)} folders of images are linked from elsewhere (first: {first} -> {target})")
    headers, problems = look({own: images / own for own in names.values()}, caches)
    gone = _check_images(found, images, names, headers, problems)
    if broken == "refuse":
        found.settle(broken)
    lost = found.leave_out(gone)
    found.check_places()
    found.settle(broken)
    if lost:
        print(f"{annotations}: {lost} annotations went with the images that were left out")
    looked = fingerprint({image["file_name"]: headers[image["file_name"]] for image in found.images})
    found.look_for_unusual()
    if not found.changed:
        return Split(annotations, images, found.content, listed, looked)
    left_out = found.faults.counts() | ({WITH_IMAGES: lost} if lost else {})
    changes = {"computed": dict(found.computed), "left_out": left_out}
    return Split(annotations, images, found.bare(), listed, looked, changes)


def _check_images(
    found: Annotations, folder: Path, names: dict[str, str], headers: dict[str, Header], problems: dict[str, str]
) -> list[int]:
    """Compare what is said of the images with their files; ids of those that cannot be used."""
    gone, turned = [], []
    near = near_names((name for name, problem in problems.items() if problem == MISSING), folder)
    for image in found.images:
        if names[image["file_name"]] != image["file_name"]:
            image["file_name"] = names[image["file_name"]]
            found.computed[NAMES] += 1
        name = image["file_name"]
        place, header = f"image {image['id']} ({name})", headers.get(name)
        if header is None:
            hint = f"there is {near[name]}" if name in near else ""
            what = _beginning(folder / name) if problems[name] == UNREADABLE else hint
            found.faults.add(problems[name], place, what)
            gone.append(image["id"])
            continue
        if not has_size(image):
            image["width"], image["height"] = header.size
            found.computed[SIZES] += 1
        said = image["width"], image["height"]
        if header.orientation != 1 and said == header.size:
            turned.append(name)
        if said != header.size:
            is_turned = header.orientation >= TURNED and said == header.size[::-1]
            what = f"{said[0]} x {said[1]}, but {header.width} x {header.height} when read"
            found.faults.add(EXIF if is_turned else DISAGREES, place, what)
            gone.append(image["id"])
    if turned:
        print(
            f"{folder}: {len(turned)} photographs are turned by their EXIF entry when they are read (first: "
            f"{turned[0]}); their boxes must be of the turned pictures"
        )
    return gone


def _beginning(path: Path) -> str:
    with contextlib.suppress(OSError), path.open("rb") as file:
        return f"starts with {start!r}" if (start := file.read(12)) else "an empty file"
    return "cannot be opened"


def check_objects(split: Split, name: str, limit: int | None) -> None:
    """Refuse a split in which nothing is to be found: no detector learns from it, and its AP is not defined."""
    entries = split.content["annotations"]
    if any(not entry["iscrowd"] for entry in entries):
        return
    what = f"nothing but {len(entries)} regions to ignore (iscrowd)" if entries else "no object at all"
    remedy = f"raise {name}_images, now {limit}" if limit else f"give {name} annotations with objects"
    raise DataError(f"{split.annotations}: {what} in {len(split.content['images'])} {name} images; {remedy}")


def notices(splits: dict[str, Split]) -> list[str]:
    """What is allowed but worth a look, a sentence each."""
    told, files = [], {}
    for name, split in splits.items():
        listed = [image["file_name"] for image in split.content["images"]]
        files[name] = {split.images.resolve() / one for one in listed}
        if double := [file for file, count in Counter(listed).items() if count > 1]:
            told.append(f"{len(double)} {name} image files are listed more than once (first: {double[0]})")
        used = {entry["category_id"] for entry in split.content["annotations"] if not entry["iscrowd"]}
        if idle := [c["name"] for c in split.content["categories"] if c["id"] not in used]:
            told.append(f"{len(idle)} classes have no {name} objects (first: {idle[0]})")
        # of COCO's kind there are none left: CrowdHuman's metric takes the published boxes as they are
        if tiny := sum(min(entry["bbox"][2:]) < 1 for entry in split.content["annotations"]):
            told.append(f"{tiny} {name} boxes are less than a pixel wide or high: mmdet does not train on these")
        if small := sum(min(image["width"], image["height"]) < SMALL for image in split.content["images"]):
            use = "leave them out of trainings" if name == "train" else "find what is in them all the same"
            told.append(f"{small} {name} images are less than {SMALL} pixels wide or high: configs at full scale {use}")
    if shared := len(set.intersection(*files.values())):
        told.append(f"{shared} val images are training images, too: their AP says little")
    return told


def subset(content: dict, count: int) -> dict:
    """The first ``count`` images with their annotations."""
    images = content["images"][:count]
    ids = {i["id"] for i in images}
    return {
        **content,
        "images": images,
        "annotations": [a for a in content["annotations"] if a["image_id"] in ids],
    }
