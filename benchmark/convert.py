"""Other formats to a COCO tree, which `prepare` takes: ``python -m benchmark.convert FORMAT``.

``voc`` reads Pascal VOC's XML files, ``yolo`` YOLO's text files, ``labelme`` its JSON files, ``csv`` tables with a row
an object. What is odd is left out, clipped or kept, and counted; ``oddities.txt`` in the new tree names every case. In
``params.yaml`` the tree is a data set of kind ``coco`` whose ``root`` is ``--out``. Its images are hard links where the
disk can have them, and take no room; nothing may be written into them then.
"""

from __future__ import annotations

if __name__ == "__main__":
    # help and usage errors come before the imports that take seconds
    from benchmark.experiment.cli import answer_early

    answer_early("convert")

from argparse import Namespace
from collections.abc import Callable

from benchmark.data.csv_boxes import read_csv
from benchmark.data.faults import DataError, Faults
from benchmark.data.foreign import Photo, told, write_tree
from benchmark.data.labelme import read_labelme
from benchmark.data.voc import read_voc
from benchmark.data.yolo import read_yolo
from benchmark.experiment.cli import command_parser, run_cli


def _yolo(args: Namespace, faults: Faults) -> list[Photo]:
    return read_yolo(args.annotations, args.images, faults, args.classes)


def _labelme(args: Namespace, faults: Faults) -> list[Photo]:
    return read_labelme(args.annotations, args.images, faults)


def _csv(args: Namespace, faults: Faults) -> list[Photo]:
    return read_csv(args.annotations)


def _voc(args: Namespace, faults: Faults) -> list[Photo]:
    return read_voc(args.annotations, args.images, faults, args.first_pixel, args.difficult)


#: readers by the name of what they read; they note what is odd
FORMATS: dict[str, Callable[[Namespace, Faults], list[Photo]]] = {
    "voc": _voc,
    "yolo": _yolo,
    "labelme": _labelme,
    "csv": _csv,
}


def main() -> None:
    args = command_parser("convert").parse_args()
    faults = Faults(args.annotations)
    photos = FORMATS[args.format](args, faults)
    contents = write_tree(photos, args.images, args.out, args.split, faults, args.classes, args.copy)
    for line in told(faults):
        print(f"{args.annotations}: {line}")
    for name, content in contents.items():
        print(f"{args.out} {name}: {len(content['images'])} images, {len(content['annotations'])} objects")
    print(f"{args.out} classes: {' '.join(category['name'] for category in contents['train']['categories'])}")


if __name__ == "__main__":
    run_cli(main, DataError)
