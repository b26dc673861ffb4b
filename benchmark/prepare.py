"""Stage `prepare`: unpack or draw a mini set, or check a COCO or CrowdHuman tree; write down where everything is.

``python -m benchmark.prepare NAME`` looks the data set up in params.yaml and writes
``work/dataset/<name>/dataset.json``. Images of the real sets are never copied: the file holds paths. Annotations of a
COCO tree are copied where something in them had to be computed or left out; ``changes.json`` counts it. CrowdHuman's
annotations are converted to COCO's format; its metric reads a copy of the ``.odgt``.
"""

if __name__ == "__main__":
    # help and usage errors come before the imports that take seconds
    from benchmark.experiment.cli import answer_early

    answer_early("prepare")

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from benchmark.data import crowdhuman
from benchmark.data.checks import Split, check_objects, check_split, notices, unpack
from benchmark.data.faults import DataError
from benchmark.data.image_sizes import fingerprint
from benchmark.data.minicoco import MIDI, write
from benchmark.experiment.cli import command_parser, run_cli
from benchmark.experiment.config import DatasetInfo
from benchmark.experiment.datasets import ROOTS, Dataset
from benchmark.experiment.settings import SettingsError, load
from benchmark.experiment.workspace import HERE, ROOT
from pgd.evaluation.coco import COCO_AREAS

ARCHIVE = ROOT / "data" / "minicoco.zip"
CROWD_ARCHIVE = ROOT / "data" / "minicrowd.zip"
#: Bounds of small and medium objects, pixels^2: they split the mini set's objects about as COCO's bounds split COCO's
#: (46, 31 and 23% of val).
MINI_AREAS = (17**2, 27**2)
#: Likewise for the drawn set with larger objects.
MIDI_AREAS = (37**2, 50**2)
#: SHA-256 of the annotations that the drawn set must have.
MIDI_DIGESTS = {
    "train": "61ec4a9badd949b45eff471eb0b896788d7d0a3c27717286867b135038d5f4bd",
    "val": "7ec276b69f939f1554026ec5db2cbda2ab95cb722c8e3fef965301601dcd5d9f",
}
#: How many images the archives must hold.
MINI_IMAGES = {"train": 2000, "val": 500}
CROWD_IMAGES = {"train": 800, "val": 300}
#: what was seen of images whose tree is not ours or cannot be written
SIZES = HERE.work / "image_sizes"


@dataclass(frozen=True)
class Located:
    """What is found of a data set, cut down to the images that the settings ask for."""

    splits: dict[str, Split]
    areas: tuple[float, float] = COCO_AREAS
    #: files besides the COCO annotations that the figures depend on
    sources: tuple[Path, ...] = ()
    metric: str = "coco"
    val_odgt: Path | None = None


def _limits(settings: Dataset) -> dict[str, int | None]:
    return {"train": settings.train_images, "val": settings.val_images}


def _coco_splits(parts: dict[str, tuple[Path, Path]], settings: Dataset, work: Path) -> dict[str, Split]:
    """Checked splits from annotation files and image folders; one that is limited or mended has a file of its own."""
    splits = {}
    for name, limit in _limits(settings).items():
        real = settings.kind == "coco"
        # of a mini set the dates are those of its unpacking: there is nothing to remember
        caches = (SIZES / work.name / f"{name}.json",) if real else ()
        root = Path(settings.root).expanduser() if real else work
        split = check_split(*parts[name], settings.broken, limit, caches, root)
        if settings.kind == "minicoco":
            _check_count(ARCHIVE, name, split.listed, MINI_IMAGES)
        if limit or split.changes:
            written = work / (f"{name}_first{limit}.json" if limit else f"{name}.json")
            written.write_text(json.dumps(split.content), encoding="utf-8")
            if computed := split.changes.get("computed"):
                told = ", ".join(f"{count} {what}" for what, count in computed.items())
                print(f"{split.annotations}: computed {told}; written to {written}")
            split = replace(split, annotations=written)
        splits[name] = split
    return splits


def _check_count(archive: Path, split: str, count: int, expected: dict[str, int]) -> None:
    if count != expected[split]:
        raise DataError(f"{archive}: {count} {split} images, expected {expected[split]}")


def _minicoco(settings: Dataset, work: Path) -> Located:
    root = work / "minicoco"
    unpack(ARCHIVE, root)
    parts = {s: (root / "annotations" / f"{s}.json", root / s) for s in MINI_IMAGES}
    return Located(_coco_splits(parts, settings, work), MINI_AREAS, sources=(ARCHIVE,))


def _midicoco(settings: Dataset, work: Path) -> Located:
    """Drawn here. Annotations are the same on every machine; pixels may differ by a rounding of OpenCV's."""
    root = work / "midicoco"
    shutil.rmtree(root, ignore_errors=True)
    pixels = hashlib.sha256()

    def put(name: str, data: bytes) -> None:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        pixels.update(data)

    write(MIDI, put)
    parts = {s: (root / "annotations" / f"{s}.json", root / s) for s in MIDI_DIGESTS}
    for split, (annotations, _) in parts.items():
        if hashlib.sha256(annotations.read_bytes()).hexdigest() != MIDI_DIGESTS[split]:
            raise DataError(
                f"{annotations}: not the published {split} set; were the versions of numpy and OpenCV changed? "
                "requirements.lock names those that draw it"
            )
    (root / "pixels.sha256").write_text(f"{pixels.hexdigest()}\n", encoding="utf-8")
    return Located(_coco_splits(parts, settings, work), MIDI_AREAS, sources=(root / "pixels.sha256",))


def _coco(settings: Dataset, work: Path) -> Located:
    root = Path(settings.root).expanduser()
    if not root.is_dir():
        raise DataError(f"root: {root} is no folder")
    parts = {split: (root / annotations, root / images) for split, (annotations, images) in settings.places.items()}
    return Located(_coco_splits(parts, settings, work))


def _crowd(root: Path, settings: Dataset, work: Path, sources: tuple[Path, ...] = ()) -> Located:
    """Converts a CrowdHuman tree: ``<split>.json`` and ``annotation_<split>.odgt`` in ``work`` hold what is used of it.

    Image sizes are remembered beside published annotations, or outside of the stage's own folder, which DVC empties
    before it runs a stage again; a mini set is measured anew, so that equal archives give equal folders.
    """
    real = settings.kind == "crowdhuman"
    published = crowdhuman.PUBLISHED if real and settings.verify else {}
    expected = crowdhuman.EXPECTED if published else ()
    splits = {}
    for name, (odgt, folders) in crowdhuman.find(root).items():
        if published:
            crowdhuman.check_digest(odgt, published[name])
        faults = crowdhuman.Faults(odgt)
        records = crowdhuman.read_odgt(odgt, faults)
        images = crowdhuman.folder_of(records, folders)
        cache = f"{odgt.stem}.sizes.json"
        caches = (odgt.with_name(cache), SIZES / work.name / cache) if real else ()
        used, headers = crowdhuman.measured(records[: _limits(settings)[name]], images, root, caches, faults)
        faults.settle(settings.broken, expected)
        if published:
            crowdhuman.check_counts(odgt, records, published[name])
        if not real:
            _check_count(CROWD_ARCHIVE, name, len(records), CROWD_IMAGES)
        if not used:
            raise DataError(f"{odgt}: no image is left; is it an annotation file of CrowdHuman?")
        content = crowdhuman.to_coco(used, {name: header.size for name, header in headers.items()})
        looked = fingerprint({record.id: headers[record.id] for record in used})
        changes = {"left_out": faults.counts()} if faults.found else {}
        splits[name] = Split(work / f"{name}.json", images, content, len(records), looked, changes)
        splits[name].annotations.write_text(json.dumps(content), encoding="utf-8")
        crowdhuman.write_odgt(work / odgt.name, used)
        sources += (odgt,)
    return Located(splits, sources=sources, metric="crowdhuman", val_odgt=work / sources[-1].name)


def _crowdhuman(settings: Dataset, work: Path) -> Located:
    return _crowd(Path(settings.root).expanduser(), settings, work)


def _minicrowd(settings: Dataset, work: Path) -> Located:
    root = work / "minicrowd"
    unpack(CROWD_ARCHIVE, root)
    return _crowd(root, settings, work, sources=(CROWD_ARCHIVE,))


#: what finds and checks a data set, by kind (benchmark.experiment.settings.Dataset)
LOCATE: dict[str, Callable[[Dataset, Path], Located]] = {
    "minicoco": _minicoco,
    "midicoco": _midicoco,
    "coco": _coco,
    "minicrowd": _minicrowd,
    "crowdhuman": _crowdhuman,
}


def prepare(name: str, settings: Dataset) -> DatasetInfo:
    """Make the data set ``name`` ready and write down where it is; raises :class:`DataError`."""
    out = HERE.dataset(name)
    work = out.parent
    work.mkdir(parents=True, exist_ok=True)
    located = LOCATE[settings.kind](settings, work)
    digest = hashlib.sha256()
    if settings.image_size:
        digest.update(repr(settings.image_size).encode())
    for source in (*located.sources, *(split.annotations for split in located.splits.values())):
        digest.update(source.read_bytes())
    limits, changes = _limits(settings), {name: split.changes for name, split in located.splits.items()}
    for split_name, split in located.splits.items():
        # of a mini set the archive holds them
        if settings.kind in ROOTS:
            digest.update(split.looked)
        check_objects(split, split_name, limits[split_name])
        boxes = sum(not a.get("iscrowd") for a in split.content["annotations"])
        print(f"{name} {split_name}: {len(split.content['images'])} images, {boxes} objects")
    train, val = located.splits["train"], located.splits["val"]
    classes, val_classes = ([c["name"] for c in split.content["categories"]] for split in (train, val))
    if classes != val_classes:
        how = "in their order, by which mmdet numbers classes" if sorted(classes) == sorted(val_classes) else "in names"
        raise DataError(
            f"{val.annotations}: the categories differ from those of {train.annotations} {how}; make the lists equal"
        )
    for told in notices(located.splits) if settings.kind in ROOTS else ():
        print(f"{name}: {told}")
    record = work / "changes.json"
    record.unlink(missing_ok=True)
    if any(changes.values()):
        record.write_text(json.dumps(changes, indent=2) + "\n", encoding="utf-8")
    info = DatasetInfo(
        name=name,
        classes=classes,
        train_images=str(train.images),
        train_annotations=str(train.annotations),
        val_images=str(val.images),
        val_annotations=str(val.annotations),
        areas=list(settings.areas or located.areas),
        digest=digest.hexdigest(),
        metric=located.metric,
        val_odgt=str(located.val_odgt) if located.val_odgt else None,
        left_out={split: made["left_out"] for split, made in changes.items() if made.get("left_out")},
        image_size=list(settings.image_size) if settings.image_size else None,
    )
    # where neither is asked for, the file stays as it is
    content = {key: value for key, value in asdict(info).items() if key not in ("left_out", "image_size") or value}
    out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return info


def main() -> None:
    args = command_parser("prepare").parse_args()
    try:
        settings = load(args.params).dataset(args.dataset)
    except SettingsError as error:
        raise SettingsError(f"{args.params}: {error}") from None
    prepare(args.dataset, settings)


if __name__ == "__main__":
    run_cli(main, SettingsError, DataError)
