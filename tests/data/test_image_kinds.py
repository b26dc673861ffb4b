"""Images of every kind that a COCO tree may hold: those that are used give the colours that a viewer shows."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope
from PIL import Image
from support.coco_tree import HEIGHT, WIDTH, annotations_of, edit, image_of, write_tree

import benchmark.training.draws  # noqa: F401  registers what the pipelines name
from benchmark.data import image_sizes
from benchmark.data.faults import DataError
from benchmark.experiment.cli import run_cli
from benchmark.experiment.settings import Dataset
from benchmark.experiment.workspace import ROOT
from benchmark.prepare import prepare

#: 8 bits of three channels that change from place to place, neither black nor white
ACROSS, DOWN = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
COLOURS = np.stack((20 + 3 * ACROSS, 30 + 4 * DOWN, 10 + ACROSS + 2 * DOWN), axis=-1).astype(np.uint8)
PICTURE = Image.fromarray(COLOURS)
GREY = np.asarray(PICTURE.convert("L"))


@dataclass(frozen=True)
class Kind:
    """A kind of image file."""

    suffix: str
    image: Image.Image
    #: [H, W, 3] RGB, what a training shall see
    seen: np.ndarray
    #: by how much a value may be off
    off: int = 0


def thrice(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[..., None], 3, axis=-1)


def tiled(width: int, height: int) -> np.ndarray:
    return np.resize(COLOURS, (height, width, 3))


def with_alpha() -> Image.Image:
    """Half of it cannot be seen at all; its colours are there all the same."""
    alpha = np.where(DOWN < HEIGHT // 2, 0, 200).astype(np.uint8)
    return Image.fromarray(np.dstack((COLOURS, alpha)))


PALETTE = PICTURE.quantize(64)
KINDS = {
    "grey": Kind(".png", PICTURE.convert("L"), thrice(GREY)),
    "grey JPEG": Kind(".jpg", PICTURE.convert("L"), thrice(GREY), off=4),
    "grey with alpha": Kind(".png", PICTURE.convert("LA"), thrice(GREY)),
    "RGBA": Kind(".png", with_alpha(), COLOURS),
    "CMYK": Kind(".tif", PICTURE.convert("CMYK"), COLOURS, off=1),
    "CMYK JPEG": Kind(".jpg", PICTURE.convert("CMYK"), COLOURS, off=12),
    # the upper eight are kept
    "16 bit": Kind(".png", Image.fromarray(GREY.astype(np.uint16) * 256 + 255), thrice(GREY)),
    "16 bit TIFF": Kind(".tif", Image.fromarray(GREY.astype(np.uint16) * 256 + 255), thrice(GREY)),
    "palette": Kind(".png", PALETTE, np.asarray(PALETTE.convert("RGB"))),
    "GIF": Kind(".gif", PALETTE, np.asarray(PALETTE.convert("RGB"))),
    "2x2": Kind(".png", PICTURE.crop((7, 5, 9, 7)), COLOURS[5:7, 7:9]),
    "10,000 wide": Kind(".png", Image.fromarray(tiled(10_000, 100)), tiled(10_000, 100)),
}


@pytest.fixture
def tree(tmp_path, monkeypatch) -> Path:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return write_tree(tmp_path / "coco")


def put(root: Path, kind: Kind) -> Path:
    """The first training image is of this kind, and its only object is as large as the image."""
    path = image_of(root).with_name(f"other{kind.suffix}")
    kind.image.save(path, **({"quality": 95, "subsampling": 0} if kind.suffix == ".jpg" else {}))
    width, height = kind.image.size

    def change(content: dict) -> None:
        content["images"][0].update(file_name=path.name, width=width, height=height)
        content["annotations"][1:3] = []
        content["annotations"][0].update(bbox=[0, 0, width, height], area=width * height)

    edit(annotations_of(root), change)
    return path


def asked(root: Path) -> Dataset:
    return Dataset("coco", root=str(root))


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_images_are_used(tree, capsys, kind):
    path = put(tree, KINDS[kind])
    info = prepare("coco", asked(tree))
    assert info.train_annotations == str(annotations_of(tree)), "taken as it is"
    assert "left out" not in capsys.readouterr().out
    assert image_sizes.look({"a": path})[0]["a"].size == KINDS[kind].image.size
    load = Compose([{"type": "LoadImageFromFile"}])
    seen = load({"img_path": str(path)})["img"][..., ::-1].astype(int)
    assert seen.shape == KINDS[kind].seen.shape
    assert np.abs(seen - KINDS[kind].seen).max() <= KINDS[kind].off


@pytest.mark.parametrize("config", ["minicoco", "coco", "coco_ms", "crowdhuman_ms"])
@pytest.mark.parametrize("kind", ["grey", "CMYK", "16 bit", "2x2", "10,000 wide"])
def test_pipelines_take_them(tree, kind, config):
    """From file to detector: three channels of eight bits, and the object in its place."""
    path = put(tree, KINDS[kind])
    width, height = KINDS[kind].image.size
    cfg = Config.fromfile(ROOT / "benchmark" / "configs" / "datasets" / f"{config}.py")
    found = {"bbox": [0, 0, width, height], "bbox_label": 0, "ignore_flag": 0}
    with DefaultScope.overwrite_default_scope("mmdet"):
        for part in ("train", "val"):
            pipeline = Compose(cfg[f"{part}_dataloader"].dataset.pipeline)
            given = {"img_path": str(path), "img_id": 1, "height": height, "width": width, "instances": [found]}
            packed = pipeline(given)
            inputs = packed["inputs"]
            assert (inputs.dim(), inputs.shape[0], str(inputs.dtype)) == (3, 3, "torch.uint8")
            assert min(inputs.shape[1:]) >= 1
            if part == "train":
                box = packed["data_samples"].gt_instances.bboxes.tensor[0].tolist()
                assert box == pytest.approx([0, 0, inputs.shape[2], inputs.shape[1]], abs=0.51)


@pytest.mark.parametrize("size", [(200, 2), (2, 200), (201, 2), (2, 201)])
def test_how_long_an_image_may_be(tmp_path, size):
    path = tmp_path / "a.png"
    Image.new("RGB", size).save(path)
    cache = tmp_path / "sizes.json"
    for _ in range(2):
        _, problems = image_sizes.look({"a": path}, [cache])
        assert problems == ({"a": image_sizes.STRIP} if max(size) > 200 else {}), "remembered or not"


def refuse(path: Path, monkeypatch) -> None:
    """Take the right to read a file away, also from root, whom file modes do not stop."""
    if os.geteuid():
        path.chmod(0)
        return
    for module, name in (("builtins", "open"), ("io", "open")):
        own: Callable = getattr(__import__(module), name)

        def checked(file, *args, own=own, **kwargs):
            if str(file) == str(path):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return own(file, *args, **kwargs)

        monkeypatch.setattr(f"{module}.{name}", checked)


def test_an_image_that_nobody_may_read(tree, monkeypatch):
    refuse(image_of(tree), monkeypatch)
    with pytest.raises(DataError) as caught:
        prepare("coco", asked(tree))
    assert str(caught.value) == (
        f"{annotations_of(tree)}: 1 images that this user may not read (image 10 (train0.png)); let this user read "
        "them (chmod u+r, and u+x of their folders), or leave these out by broken: skip"
    )


def test_annotations_that_nobody_may_read(tree, monkeypatch):
    refuse(annotations_of(tree), monkeypatch)
    with pytest.raises(DataError) as caught:
        prepare("coco", asked(tree))
    assert str(caught.value) == f"{annotations_of(tree)}: Permission denied; let this user read it (chmod u+r)"


def test_a_folder_where_nobody_may_write(tree, monkeypatch, capsys):
    """One line, and the data set that was prepared before is not touched."""
    prepare("coco", asked(tree))
    before = {path: path.read_bytes() for path in Path("work").rglob("*") if path.is_file()}
    assert before

    def read_only(path: Path, *args, **kwargs) -> int:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(Path, "write_text", read_only)
    edit_bare = json.loads(annotations_of(tree).read_text(encoding="utf-8"))
    for entry in edit_bare["annotations"]:
        del entry["area"]
    annotations_of(tree).write_bytes(json.dumps(edit_bare).encode())
    with pytest.raises(SystemExit) as stop:
        run_cli(lambda: prepare("coco", asked(tree)), DataError)
    assert stop.value.code == 1
    told = capsys.readouterr().err
    assert told == (
        "error: work/dataset/coco/train.json: Read-only file system; let this user read and write there (chmod, "
        "chown), or run it elsewhere\n"
    )
    assert {path: path.read_bytes() for path in before} == before
