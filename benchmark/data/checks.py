"""Unpacking archives and checking COCO files: what is missing or broken is an error that names the file."""

from __future__ import annotations

import json
import shutil
import zipfile
import zlib
from pathlib import Path

from tqdm import tqdm


class DataError(RuntimeError):
    """Data is missing or broken; one line that names the file and the remedy."""


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


def read_annotations(path: Path) -> dict:
    """A COCO JSON with the three lists it must have."""
    if not path.is_file():
        raise DataError(f"{path}: missing")
    try:
        content = json.loads(path.read_text())
    except ValueError as error:  # not JSON, or not even text
        raise DataError(f"{path}: not valid JSON, probably truncated ({error}); fetch it again") from None
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise DataError(f"{path}: no list '{key}'; is this a COCO instances file?")
    return content


def check_split(annotations: Path, images: Path) -> dict:
    """Check that a split is whole: every image is there, every annotation points at one and has a box.

    Returns the parsed annotations. Raises :class:`DataError` with counts and the first culprit.
    """
    content = read_annotations(annotations)
    if not images.is_dir():
        raise DataError(f"{images}: no such folder, though {annotations} describes its images")
    present = {p.name for p in images.iterdir()}
    absent = [i["file_name"] for i in content["images"] if i["file_name"] not in present]
    if absent:
        raise DataError(
            f"{images}: {len(absent)} of {len(content['images'])} images that {annotations.name} lists are missing "
            f"(first: {absent[0]})"
        )
    empty = [i["file_name"] for i in content["images"] if (images / i["file_name"]).stat().st_size == 0]
    if empty:
        raise DataError(f"{images}: {len(empty)} images are empty files (first: {empty[0]}); fetch them again")
    ids, categories = {i["id"] for i in content["images"]}, {c["id"] for c in content["categories"]}
    for a in content["annotations"]:
        if a.get("image_id") not in ids or a.get("category_id") not in categories or len(a.get("bbox") or ()) != 4:
            raise DataError(f"{annotations}: annotation {a.get('id')} has no box, or an unknown image or category")
    return content


def subset(content: dict, count: int) -> dict:
    """The first ``count`` images with their annotations."""
    images = content["images"][:count]
    ids = {i["id"] for i in images}
    return {
        **content,
        "images": images,
        "annotations": [a for a in content["annotations"] if a["image_id"] in ids],
    }
