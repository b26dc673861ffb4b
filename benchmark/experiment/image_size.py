"""How large images are when a detector sees them: ``image_size`` of a data set, and a check where it is not set."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from mmengine.config import Config

from benchmark.experiment.settings import SettingsError
from benchmark.experiment.workspace import ROOT

Size = tuple[int, int]
LOADERS = ("train_dataloader", "val_dataloader", "test_dataloader")
#: steps of pipelines that scale images to a size
RESIZES = ("Resize", "FixScaleResize", "FixShapeResize", "RandomResize", "RandomChoiceResize")
#: what such a step keeps where its size is replaced
KEPT = ("clip_object_border", "backend", "interpolation")
#: by which other steps bring sizes of their own: mmdet's mosaics, mmcv's choices between pipelines
OWN_SIZES = ("img_scale", "transforms")
#: steps that leave images as large as they are
NEUTRAL = (
    *("LoadImageFromFile", "LoadImageOnce", "LoadAnnotations", "FilterAnnotations", "PackDetInputs"),
    *("RandomFlip", "PhotoMetricDistortion", "YOLOXHSVRandomAug", "Pad"),
)
#: pixels by which sizes may differ, since bounds of random scales are rounded
ROUNDING = 1


class Scaling(NamedTuple):
    """What a pipeline does to the size of images: to a scale between two, as ``Resize`` takes them; None: nothing."""

    low: Size | None = None
    high: Size | None = None
    keep_ratio: bool = False

    def of(self, size: Size) -> tuple[Size, Size]:
        """The least and the largest (width, height) that an image of this one gets."""
        return scaled(size, self.low, self.keep_ratio), scaled(size, self.high, self.keep_ratio)

    def admits(self, other: Scaling, size: Size) -> bool:
        """Whether the other's sizes of such an image are among its own."""
        (low, high), own = other.of(size), self.of(size)
        least, most = ([side + slack for side in one] for one, slack in zip(own, (-ROUNDING, ROUNDING), strict=True))
        return _between(least, low, high, most)

    def includes(self, other: Scaling) -> bool:
        """Whether the other's sizes are among its own, whatever images there are."""
        if self.low is None or other.low is None:
            return self.low is other.low
        return self.keep_ratio == other.keep_ratio and _between(self.low, other.low, other.high, self.high)


def scaled(size: Size, scale: Size | None, keep_ratio: bool) -> Size:
    """(width, height) of an image behind mmcv's ``Resize``."""
    if scale is None or not keep_ratio:
        return scale or size
    factor = min(max(scale) / max(size), min(scale) / min(size))
    return int(size[0] * factor + 0.5), int(size[1] * factor + 0.5)


def _between(*sizes: Sequence[int]) -> bool:
    """Whether sizes ascend, in both directions."""
    return all(list(sides) == sorted(sides) for sides in zip(*sizes, strict=True))


def _kind(step: dict) -> str:
    """The class of a step, without the library's name in front."""
    kind = step["type"]
    return (kind if isinstance(kind, str) else kind.__name__).rpartition(".")[2]


def _pair(scale: int | Sequence[int]) -> Size:
    return (scale, scale) if isinstance(scale, int) else tuple(scale)


def _scaling_of(step: dict) -> Scaling | None:
    """What a step of :data:`RESIZES` does; None where it cannot be told."""
    scales = step.get("scales", step.get("scale"))
    if scales is None:
        return None
    many = isinstance(scales, list) and not isinstance(scales[0], int)
    scales = [_pair(one) for one in scales] if many else [_pair(scales)]
    if ratios := step.get("ratio_range"):
        scales = [tuple(int(side * ratio) for side in scales[0]) for ratio in ratios]
    keep_ratio = step.get("keep_ratio", False)
    if keep_ratio:
        # a long and a short side, in whatever order
        scales = [(max(one), min(one)) for one in scales]
    low, high = (tuple(map(bound, zip(*scales, strict=True))) for bound in (min, max))
    return Scaling(low, high, keep_ratio)


def scaling(pipeline: Iterable[dict]) -> Scaling | None:
    """What a pipeline does to the size of images; None where it cannot be told, such as behind crops."""
    steps = [step for step in pipeline if _kind(step) not in NEUTRAL]
    if not steps:
        return Scaling()
    return _scaling_of(steps[0]) if len(steps) == 1 and _kind(steps[0]) in RESIZES else None


def config_name(cfg: Config) -> str:
    """The file of a config, from the repository."""
    return str(cfg.filename or "the config").removeprefix(f"{ROOT}/")


def _with_size(pipeline: Sequence[dict], resize: dict) -> list[dict]:
    """The pipeline with this step in place of its own; without one, behind those that load."""
    if not any(_kind(step) in RESIZES for step in pipeline):
        place = 1 + max((i for i, step in enumerate(pipeline) if _kind(step).startswith("Load")), default=-1)
        return [*pipeline[:place], resize, *pipeline[place:]]
    return [
        {**{key: step[key] for key in KEPT if key in step}, **resize} if _kind(step) in RESIZES else step
        for step in pipeline
    ]


def set_image_size(cfg: Config, name: str, size: Sequence[int] | None) -> None:
    """Scale images to one size in every pipeline of a config, whatever each of them did; None leaves them alone.

    Args:
        cfg: is changed.
        name: of the data set.
        size: as mmdet's ``Resize`` takes it. Images keep their shape, but for configs that test on stretched ones.

    Raises:
        SettingsError: a step has sizes of its own.
    """
    datasets = [cfg[loader].dataset for loader in LOADERS if cfg.get(loader)] if size else []
    for step in (step for dataset in datasets for step in dataset.pipeline if _kind(step) not in RESIZES):
        if own := [key for key in OWN_SIZES if key in step]:
            raise SettingsError(
                f"datasets.{name}.image_size: {config_name(cfg)} has a step {_kind(step)} with sizes of its own "
                f"({own[0]}); take a config without it"
            )
    tested = [step.get("keep_ratio", False) for step in datasets[-1].pipeline if _kind(step) in RESIZES] if size else []
    for dataset in datasets:
        resize = {"type": "Resize", "scale": tuple(size), "keep_ratio": all(tested)}
        dataset.pipeline = _with_size(dataset.pipeline, resize)


@functools.lru_cache(maxsize=8)
def _sizes(path: Path, changed: int) -> tuple[Size, ...]:
    # planning asks for the same few files once a run
    images = json.loads(path.read_text(encoding="utf-8"))["images"]
    return tuple(dict.fromkeys((image["width"], image["height"]) for image in images))


def check_image_sizes(cfg: Config, name: str, annotations: Iterable[str]) -> None:
    """Refuse a config that would test on another size of an image than it trains on.

    Files are read only where the config alone does not tell.

    Args:
        cfg: with the pipelines.
        name: of the data set.
        annotations: its files, in COCO's format.
    """
    train, test = (scaling(cfg[loader].dataset.pipeline) for loader in LOADERS[:2])
    if train is None or test is None or train.includes(test):
        return
    for path in map(Path, annotations):
        for size in _sizes(path, path.stat().st_mtime_ns):
            if not train.admits(test, size):
                trained, tested = (" to ".join(dict.fromkeys(map(_text, one.of(size)))) for one in (train, test))
                raise SettingsError(
                    f"{config_name(cfg)}: images of {_text(size)} pixels, as in {path}, would be trained on at "
                    f"{trained} and tested on at {tested}; set datasets.{name}.image_size, which acts on both, or "
                    "correct the pipelines by options"
                )


def _text(size: Size) -> str:
    return f"{size[0]} x {size[1]}"
