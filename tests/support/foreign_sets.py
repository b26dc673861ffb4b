"""Small sets in other formats than COCO's, for tests: VOC's XML files, and others with the same images."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from benchmark.convert import main
from benchmark.experiment.datasets import LAYOUT
from support.coco_tree import write_image

#: of all images, pixels
WIDTH, HEIGHT = 64, 48
PLAIN = ("cat", (5, 7, 24, 30))


def written(objects: list, size: tuple[int, int] = (WIDTH, HEIGHT), filename: str = "", **flags: int) -> str:
    """An annotation with objects ``(name, (xmin, ymin, xmax, ymax))``."""
    entries = "".join(
        f"<object><name>{name}</name>{''.join(f'<{k}>{v}</{k}>' for k, v in flags.items())}<bndbox>"
        + "".join(f"<{side}>{n}</{side}>" for side, n in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
        + "</bndbox></object>"
        for name, box in objects
    )
    sides = f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>"
    return f"<annotation><filename>{filename}</filename>{sides}{entries}</annotation>"


class Voc:
    """A set in the making: annotations in ``xml/``, images in ``img/``."""

    def __init__(self, root: Path) -> None:
        self.root, self.xml, self.img, self.out = root, root / "xml", root / "img", root / "out"
        for folder in (self.xml, self.img):
            folder.mkdir()
        # of these one is always for val
        for name in ("rest1", "rest2"):
            self.add(name, [PLAIN])
        (root / "val.txt").write_text("rest2\n")

    def add(self, name: str, objects: list, image: str = ".png", **options) -> None:
        (self.xml / f"{name}.xml").write_text(written(objects, **options))
        if image:
            write_image(self.img / f"{name}{image}", (WIDTH, HEIGHT))

    def convert(self, *more: str) -> dict[str, dict]:
        """Runs the command; COCO's content by split."""
        arguments = ["--annotations", str(self.xml), "--images", str(self.img), "--out", str(self.out), *more]
        if "--split" not in more:
            arguments += ["--split", str(self.root / "val.txt")]
        sys.argv = ["convert", "voc", *arguments]
        main()
        return {name: json.loads((self.out / file).read_text()) for name, (file, _) in LAYOUT.items()}

    def oddities(self) -> list[str]:
        return (self.out / "oddities.txt").read_text().splitlines()


class Plain(Voc):
    """The same images with annotations of another format: what is added to it is text."""

    def __init__(self, root: Path, format: str) -> None:
        super().__init__(root)
        self.format = format

    def convert(self, *more: str) -> dict[str, dict]:
        split = ["--split", str(self.root / "val.txt")]
        annotations = self.root / "boxes.csv" if self.format == "csv" else self.xml
        folders = ["--annotations", str(annotations), "--images", str(self.img), "--out", str(self.out)]
        sys.argv = ["convert", self.format, *folders, *split, *more]
        main()
        return {name: json.loads((self.out / file).read_text()) for name, (file, _) in LAYOUT.items()}


def boxes(content: dict, name: str) -> list[list[float]]:
    """Of an image, by the beginning of its file's name."""
    ids = {image["id"] for image in content["images"] if image["file_name"].startswith(name)}
    return [entry["bbox"] for entry in content["annotations"] if entry["image_id"] in ids]
