"""The arguments of the commands that make, fetch and convert data sets; nothing here imports what takes seconds.

:mod:`benchmark.experiment.arguments` names them.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path


def archive(name: str) -> Callable[[ArgumentParser], None]:
    """Of the command that draws the mini set of this name."""

    def add(parser: ArgumentParser) -> None:
        target = Path("data") / f"{name}.zip"
        parser.add_argument("archive", type=Path, nargs="?", default=target, help="zip file to write")
        parser.add_argument("--workers", type=int, default=2, help="processes (default: %(default)s)")

    return add


def convert(parser: ArgumentParser) -> None:
    """Other formats to a COCO tree."""
    formats = parser.add_subparsers(dest="format", required=True)
    voc = formats.add_parser("voc", help="Pascal VOC: an XML file an image")
    _converted(voc, "folder of the XML files")
    voc.add_argument(
        "--first-pixel",
        type=int,
        choices=(0, 1),
        default=1,
        help="where pixels are counted from: 1 as VOC does, both ends part of the box; 0: edges (default: 1)",
    )
    voc.add_argument(
        "--difficult",
        choices=("ignore", "keep"),
        default="ignore",
        help="difficult objects are regions to ignore, or objects like others (default: ignore)",
    )

    _converted(formats.add_parser("yolo", help="YOLO: a text file an image"), "folder of the text files")
    _converted(formats.add_parser("labelme", help="labelme: a JSON file an image"), "folder of the JSON files")
    _converted(formats.add_parser("csv", help="tables: a row an object"), "the table, or a folder of tables")


def _converted(parser: ArgumentParser, annotations: str) -> None:
    """What all formats share."""
    parser.add_argument("--annotations", type=Path, required=True, help=annotations)
    parser.add_argument("--images", type=Path, required=True, help="folder of the images")
    parser.add_argument(
        "--split",
        nargs="+",
        required=True,
        metavar="PART",
        help="val's share of the images, by a hash of their names (0.2); or val, or train and val, each a file of "
        "image names or a folder",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the COCO tree, a new one")
    parser.add_argument(
        "--classes", nargs="+", default=[], metavar="NAME", help="in this order (default: alphabetical)"
    )
    parser.add_argument("--copy", action="store_true", help="copy images instead of linking them")


def sound_conversion(args: Namespace) -> str | None:
    """A complaint about classes or split."""
    if len(set(args.classes)) < len(args.classes):
        return f"--classes {' '.join(args.classes)}: a class stands twice"
    if len(args.split) > 2:
        return "--split takes a share, or val, or train and val"
    try:
        share = float(args.split[0])
    except ValueError:
        return None
    if len(args.split) > 1 or not 0 < share < 1:
        return f"--split {' '.join(args.split)}: give one share between 0 and 1, or files or folders"
    return None


def fetch(parser: ArgumentParser) -> None:
    """Data sets of others."""
    parser.add_argument("name", choices=("coco", "bccd", "crowdhuman"))
    parser.add_argument("--root", type=Path, required=True, metavar="DIR", help="folder of the data set")
    parser.add_argument("--mirror", metavar="URL", help="the same files from another place")
    parser.add_argument("--check", action="store_true", help="fetch nothing; compare what is there")
    parser.add_argument("--keep", action="store_true", help="keep COCO's archives after unpacking")


def what_is_fetched(args: Namespace) -> str | None:
    """A complaint about options of a download where there is none."""
    if args.mirror and (args.check or args.name == "crowdhuman"):
        return "--mirror: nothing is fetched here"
    return "--keep: only for coco, without --check" if args.keep and (args.name != "coco" or args.check) else None


def pretrain(parser: ArgumentParser) -> None:
    """Backbones of the mini detectors."""
    parser.add_argument("names", nargs="+", choices=("resnet18_c16", "resnet18_c8", "resnet34_c16"))
    parser.add_argument("--out", type=Path, default=Path("data/pretrained"))
    parser.add_argument("--cache", type=Path, default=Path("work/crops"), help="drawn crops are kept here")
