"""Stored features are the teacher's own, whatever asks for them, and a damaged store gives none."""

from __future__ import annotations

import json

import pytest
import torch

from pgd.checkpoint import CheckpointError
from pgd.teacher_features import INDEX, VALUES, MixedSizes, StoredFeatures, store


class Sample:
    """What is asked of a data sample."""

    def __init__(self, img_id: int, flip: bool = False) -> None:
        self.img_id, self.flip = img_id, flip

    def get(self, name: str):
        return {"flip": self.flip, "flip_direction": "horizontal" if self.flip else None}[name]


def features_of(images: torch.Tensor) -> list[torch.Tensor]:
    """Two levels that tell where they come from."""
    fine = torch.cat([images, images.flip(1)], dim=1)
    return [fine.to(memory_format=torch.channels_last), fine[:, :, ::2, ::2] + 0.25]


SAMPLES = [Sample(7), Sample(9), Sample(7, flip=True), Sample(9, flip=True)]
IMAGES = torch.randn(4, 3, 6, 4, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def folder(tmp_path):
    batches = [(IMAGES[:2], SAMPLES[:2]), (IMAGES[2:], SAMPLES[2:])]
    assert store(tmp_path / "x", batches, features_of) == 4 * (6 * 24 + 6 * 6) * 4
    return tmp_path / "x"


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 1], [2, 2, 0]])
def test_what_was_stored_comes_back(folder, order):
    found = StoredFeatures(folder)([SAMPLES[i] for i in order], torch.device("cpu"))
    for own, expected in zip(found, features_of(IMAGES[order]), strict=True):
        assert torch.equal(own, expected)
        assert own.is_contiguous(memory_format=torch.channels_last)


def test_an_image_is_stored_once(tmp_path):
    batches = [(IMAGES[:2], SAMPLES[:2]), (IMAGES[:2], SAMPLES[:2])]
    assert store(tmp_path, batches, features_of) == 2 * 180 * 4


def test_half_precision(tmp_path):
    assert store(tmp_path, [(IMAGES, SAMPLES)], features_of, "float16") == 4 * 180 * 2
    found = StoredFeatures(tmp_path)(SAMPLES, torch.device("cpu"))
    for own, expected in zip(found, features_of(IMAGES), strict=True):
        assert own.dtype == torch.float32
        assert torch.equal(own, expected.half().float())


def test_images_of_several_sizes_are_refused(tmp_path):
    with pytest.raises(MixedSizes):
        store(tmp_path, [(IMAGES, SAMPLES), (IMAGES[:, :, :4], SAMPLES)], features_of)


def test_what_is_broken_is_refused(folder):
    stored = StoredFeatures(folder)
    with pytest.raises(CheckpointError, match="has no image 8"):
        stored([Sample(8)], torch.device("cpu"))
    values = folder / VALUES
    whole = values.read_bytes()
    values.write_bytes(whole[:-1])
    with pytest.raises(CheckpointError, match="cut off"):
        StoredFeatures(folder)
    values.write_bytes(whole[:100] + b"x" + whole[101:])
    with pytest.raises(CheckpointError, match="damaged at image 7"):
        StoredFeatures(folder)(SAMPLES, torch.device("cpu"))
    (folder / INDEX).write_text(json.dumps({})[:-1])
    with pytest.raises(CheckpointError, match="no stored features"):
        StoredFeatures(folder)
