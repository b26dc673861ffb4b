"""Stage `prepare`: unpack and verify the mini set, or check a COCO tree, and write down where everything is.

``python -m benchmark.prepare NAME`` looks the data set up in params.yaml and writes
``work/dataset/<name>/dataset.json``. COCO images are never copied: the file holds paths.
"""

import argparse
import hashlib
import json
import shutil
import zipfile
import zlib
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

from benchmark.cli import run_cli
from benchmark.config import ROOT, DatasetInfo
from benchmark.settings import Dataset, SettingsError, load
from pgd.evaluation.coco import COCO_AREAS

ARCHIVE = ROOT / "data" / "minicoco.zip"
#: Bounds of small and medium objects, pixels^2: they split the mini set's objects about as COCO's bounds split COCO's
#: (46, 31 and 23% of val).
MINI_AREAS = (17**2, 27**2)
#: How many images and annotations the archive must hold.
MINI_IMAGES = {"train": 2000, "val": 500}


class DataError(RuntimeError):
    """Data is missing or broken; one line that names the file and the remedy."""


def unpack(archive: Path, target: Path) -> None:
    """Unpack the mini set, whose zip carries a checksum of every file."""
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


def locate(settings: Dataset, work: Path) -> tuple[dict[str, tuple[Path, Path]], tuple[float, float]]:
    """(annotations, image folder) of both splits, and the area bounds of the set."""
    if settings.kind == "minicoco":
        root = work / "minicoco"
        unpack(ARCHIVE, root)
        return {s: (root / "annotations" / f"{s}.json", root / s) for s in ("train", "val")}, MINI_AREAS
    root = Path(settings.root).expanduser()
    if not root.is_dir():
        raise DataError(f"root: {root} is no folder")
    names = {"train": "train2017", "val": "val2017"}
    splits = {s: (root / "annotations" / f"instances_{n}.json", root / n) for s, n in names.items()}
    return splits, COCO_AREAS


def prepare(name: str, settings: Dataset) -> DatasetInfo:
    """Make the data set ``name`` ready and write down where it is; raises :class:`DataError`."""
    out = DatasetInfo.path(name)
    work = out.parent
    work.mkdir(parents=True, exist_ok=True)
    splits, areas = locate(settings, work)
    limits = {"train": settings.train_images, "val": settings.val_images}
    paths, classes, digest = {}, {}, hashlib.sha256()
    if settings.kind == "minicoco":
        digest.update(ARCHIVE.read_bytes())
    for split, (annotations, images) in splits.items():
        content = check_split(annotations, images)
        if settings.kind == "minicoco" and len(content["images"]) != MINI_IMAGES[split]:
            raise DataError(f"{ARCHIVE}: {len(content['images'])} {split} images, expected {MINI_IMAGES[split]}")
        if limits[split]:
            content = subset(content, limits[split])
            annotations = work / f"{split}_first{limits[split]}.json"
            annotations.write_text(json.dumps(content))
        paths[split] = (annotations, images)
        digest.update(annotations.read_bytes())
        classes[split] = [c["name"] for c in content["categories"]]
        boxes = sum(not a.get("iscrowd") for a in content["annotations"])
        print(f"{name} {split}: {len(content['images'])} images, {boxes} objects")
    if classes["train"] != classes["val"]:
        raise DataError("the categories of the training and the validation annotations differ")
    info = DatasetInfo(
        name=name,
        classes=classes["train"],
        train_images=str(paths["train"][1]),
        train_annotations=str(paths["train"][0]),
        val_images=str(paths["val"][1]),
        val_annotations=str(paths["val"][0]),
        areas=list(areas),
        digest=digest.hexdigest(),
    )
    out.write_text(json.dumps(asdict(info), indent=2) + "\n")
    return info


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", help="name of a data set in params.yaml")
    parser.add_argument("--params", default="params.yaml")
    args = parser.parse_args()
    datasets = load(args.params).datasets
    if args.dataset not in datasets:
        raise SettingsError(f"{args.params}: no data set '{args.dataset}'; there are: {', '.join(datasets)}")
    prepare(args.dataset, datasets[args.dataset])


if __name__ == "__main__":
    run_cli(main, SettingsError, DataError)
