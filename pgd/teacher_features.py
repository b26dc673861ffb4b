"""Neck features of a frozen teacher, computed once for every image and flip and read back in every epoch.

With flips as the only augmentation a teacher sees two versions of an image. :func:`store` writes what its backbone and
neck make of them, :class:`StoredFeatures` gives them for a batch; the head, which costs little and of which methods
want very different things, looks at them anew each time. Features in single precision are those that the teacher itself
would have given, bit for bit, where it was asked in batches of the same size on the same machine.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pgd.checkpoint import CheckpointError

#: what features can be stored as
PRECISIONS = ("float32", "float16")
VALUES, INDEX = "values.bin", "index.json"


def key_of(sample: Any) -> tuple:
    """What tells apart the versions of an image: its id and the direction in which it was flipped, or None."""
    return sample.img_id, sample.get("flip_direction") if sample.get("flip") else None


class MixedSizes(ValueError):
    """Images of different sizes: features depend on the padding that other images of a batch ask for."""


def store(
    folder: Path,
    batches: Iterable[tuple[Tensor, Sequence]],
    features_of: Callable[[Tensor], Sequence[Tensor]],
    precision: str = "float32",
) -> int:
    """Write the features of all batches; returns how many bytes.

    Args:
        folder: gets two files.
        batches: preprocessed images ``[N, 3, H, W]``, all of one size, and their data samples.
        features_of: the teacher's backbone and neck: a map ``[N, C, H, W]`` a level.
        precision: of :data:`PRECISIONS`.

    Raises:
        MixedSizes: images of more than one size.
    """
    folder.mkdir(parents=True, exist_ok=True)
    keys: dict[tuple, int] = {}
    checks: list[int] = []
    shapes: list[tuple[int, ...]] = []
    with (folder / VALUES).open("wb") as file, torch.no_grad():
        for images, samples in batches:
            maps = features_of(images)
            own = [tuple(m.shape[1:]) for m in maps]
            if shapes and own != shapes:
                raise MixedSizes(f"feature maps of {own[0]} and of {shapes[0]}")
            shapes = own
            # channels innermost, as convolutions on CPUs like it
            rows = torch.cat([m.permute(0, 2, 3, 1).flatten(1) for m in maps], dim=1).numpy().astype(precision)
            for row, sample in zip(rows, samples, strict=True):
                if key_of(sample) not in keys:
                    keys[key_of(sample)] = len(keys)
                    checks.append(zlib.crc32(row.tobytes()))
                    file.write(row.tobytes())
    index = {"precision": precision, "shapes": shapes, "keys": list(keys), "crc32": checks}
    (folder / INDEX).write_text(json.dumps(index))
    return (folder / VALUES).stat().st_size


class StoredFeatures:
    """Reads what :func:`store` wrote.

    Raises:
        CheckpointError: a file is missing or cut off, or an image is not the one that was stored.
    """

    def __init__(self, folder: str | Path) -> None:
        self.path = Path(folder) / VALUES
        try:
            index = json.loads((Path(folder) / INDEX).read_text())
            self._file = self.path.open("rb")
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{folder}: no stored features ({error}); delete the folder") from None
        self.shapes = [tuple(shape) for shape in index["shapes"]]
        self.precision = np.dtype(index["precision"])
        self.width = sum(int(np.prod(shape)) for shape in self.shapes)
        self._place = {tuple(key): i for i, key in enumerate(index["keys"])}
        self._checks = index["crc32"]
        if self.path.stat().st_size != len(self._place) * self.width * self.precision.itemsize:
            raise CheckpointError(f"{self.path}: cut off; delete its folder")

    def __call__(self, samples: Sequence, device: torch.device) -> tuple[Tensor, ...]:
        """Features of a batch, ``[N, C, H, W]`` a level with channels innermost."""
        rows = np.empty((len(samples), self.width), self.precision)
        for row, sample in zip(rows, samples, strict=True):
            if (place := self._place.get(key_of(sample))) is None:
                raise CheckpointError(f"{self.path}: has no image {key_of(sample)[0]}; delete its folder")
            # a read, not a map: what was read does not count as this process's memory
            os.preadv(self._file.fileno(), [row.data], place * row.nbytes)
            if zlib.crc32(row.data) != self._checks[place]:
                raise CheckpointError(f"{self.path}: damaged at image {key_of(sample)[0]}; delete its folder")
        flat = torch.from_numpy(rows).to(device).float()
        parts = flat.split([int(np.prod(shape)) for shape in self.shapes], dim=1)
        return tuple(
            part.reshape(-1, h, w, c).contiguous().permute(0, 3, 1, 2)
            for part, (c, h, w) in zip(parts, self.shapes, strict=True)
        )
