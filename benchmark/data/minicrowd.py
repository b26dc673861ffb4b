"""minicrowd: a deterministic set of crowded drawn people in CrowdHuman's form. ``python -m benchmark.data.minicrowd``

256x192 images of about twelve persons (:mod:`benchmark.data.people`) who stand in groups and hide each other, with
occluders, truncation, changing light and ignore regions (:mod:`benchmark.data.crowd_scene`). Image number ``i`` of a
split is a function of (seed, split, i) alone.

The annotation is one JSON object a line, as in CrowdHuman's ``.odgt`` files; boxes are ``[x, y, w, h]`` in pixels:

- a *person* has ``fbox``, its whole body as drawn without occluders, which may exceed the image; ``vbox``, tight around
  its pixels that show; ``hbox``, its head with hair and hat. Bags and umbrellas do not count. ``extra.occ`` is 1 if
  less than :data:`OCC_SHARE` of the body shows, ``head_attr.occ`` the same of the head. A person of whom fewer than
  :data:`MIN_PIXELS` pixels or less than :data:`MIN_SHARE` of the body show has ``extra.ignore`` 1; one of whom nothing
  shows is left out.
- a *mask* is a far crowd (one box) or a lookalike: statue, mannequin, poster, mirror image. Its three boxes are the
  same, tight around what shows, and ``extra.ignore`` is 1.
"""

from __future__ import annotations

if __name__ == "__main__":
    # help and usage errors come before the imports that take seconds
    from benchmark.experiment.cli import answer_early

    answer_early("data.minicrowd")

import json
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from benchmark.data.archive import Split, jpeg, new_archive
from benchmark.data.crowd_scene import PERSON, Seen, bounds, crowd_scene
from benchmark.experiment.cli import command_parser

SEED = 20220712
#: height, width
SIZE = (192, 256)
JPEG_QUALITY = 80
MIN_PIXELS = 12
MIN_SHARE = 0.15
OCC_SHARE = 0.9
#: a lookalike or far crowd of fewer pixels is not worth a box
MIN_MASK = 12

SPLITS = (Split("train", 0, 800), Split("val", 1, 300))


def annotate(seen: Iterable[Seen]) -> list[dict]:
    """The ``gtboxes`` of one image."""
    boxes: list[dict] = []
    persons = 0
    for item in seen:
        visible = list(bounds(item.visible))
        if item.kind != PERSON:
            if item.visible.sum() >= MIN_MASK:
                same = {"fbox": visible, "vbox": visible, "hbox": visible}
                boxes.append({"tag": "mask", **same, "head_attr": {}, "extra": {"ignore": 1}})
            continue
        extra = {"box_id": persons, "occ": int(item.share < OCC_SHARE)}
        if item.visible.sum() < MIN_PIXELS or item.share < MIN_SHARE:
            extra["ignore"] = 1
        boxes.append(
            {
                "tag": "person",
                "fbox": list(item.full),
                "vbox": visible,
                "hbox": list(item.head),
                "head_attr": {"ignore": 0, "occ": int(item.head_share < OCC_SHARE), "unsure": 0},
                "extra": extra,
            }
        )
        persons += 1
    return boxes


def render(split: Split, index: int) -> tuple[np.ndarray, list[Seen]]:
    """Image ``index`` of ``split`` as uint8 RGB, and whoever shows in it."""
    return crowd_scene(np.random.default_rng([SEED, split.number, index]), SIZE)


def image_id(split: Split, index: int) -> str:
    return f"minicrowd,{split.name}{index:05d}"


def _encoded(split: Split, index: int) -> tuple[bytes, str]:
    """The JPEG file and the annotation line of one image."""
    image, seen = render(split, index)
    record = {"ID": image_id(split, index), "gtboxes": annotate(seen)}
    return jpeg(image, JPEG_QUALITY, optimize=True), json.dumps(record, separators=(",", ":"))


def generate(archive: Path, workers: int = 2, splits: Iterable[Split] = SPLITS) -> None:
    """Write ``Images/<ID>.jpg`` and ``annotation_<split>.odgt`` into one archive; equal content gives equal bytes."""
    with new_archive(archive) as out, ProcessPoolExecutor(workers) as pool:
        for split in splits:
            jobs = pool.map(partial(_encoded, split), range(split.images), chunksize=8)
            lines = []
            for i, (data, line) in enumerate(tqdm(jobs, total=split.images, desc=f"minicrowd {split.name}")):
                out.add(f"Images/{image_id(split, i)}.jpg", data)
                lines.append(line + "\n")
            out.add(f"annotation_{split.name}.odgt", "".join(lines).encode())


def main() -> None:
    args = command_parser("data.minicrowd").parse_args()
    generate(args.archive, args.workers)
    print(f"{args.archive}: {args.archive.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
