"""What a training draws follows from its seed and the number of the draw alone."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
import torch
from mmdet.datasets.samplers import AspectRatioBatchSampler
from mmdet.registry import DATA_SAMPLERS, DATASETS, TRANSFORMS
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from support.worlds import light_content

from benchmark.experiment.config import training_config
from benchmark.experiment.settings import parse
from benchmark.training.draws import dice, stacked, thrown
from benchmark.training.grouped import GroupedDraws


@pytest.fixture(autouse=True)
def scope():
    init_default_scope("mmdet")


@pytest.fixture
def loader(tiny_data, tmp_path):
    """Of a training's config."""
    return training_config(parse(light_content()).student("student", 3), tiny_data, None, tmp_path).train_dataloader


@pytest.fixture
def dataset(loader):
    return DATASETS.build(loader.dataset)


def flips(dataset, draws) -> list[bool]:
    return [dataset[i]["data_samples"].flip for i in draws]


@pytest.mark.slow
def test_a_draw_is_always_the_same(dataset):
    count = len(dataset)
    first = flips(dataset, range(4 * count))
    np.random.seed(7)
    assert flips(dataset, reversed(range(4 * count))) == first[::-1]
    assert first[:count] != first[count : 2 * count], "an image is flipped in some epochs"
    assert 0.2 < np.mean(first) < 0.8
    assert dataset[count + 2]["data_samples"].img_id == dataset[2]["data_samples"].img_id


@pytest.mark.slow
def test_seeds_differ(loader, dataset):
    other = DATASETS.build({**loader.dataset, "seed": 4})
    assert flips(other, range(48)) != flips(dataset, range(48))


def test_dice_are_put_back():
    np.random.seed(1)
    random.seed(1)
    expected = np.random.random(), random.random()
    np.random.seed(1)
    random.seed(1)
    with thrown(5, 6):
        inside = np.random.random(), random.random()
    assert (np.random.random(), random.random()) == expected
    with thrown(5, 6):
        assert (np.random.random(), random.random()) == inside
    assert len({dice(0, 1), dice(1, 0), dice(0, 0, 1), dice(0)}) == 4


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "plain"), [("EndlessDraws", "InfiniteSampler"), ("EpochDraws", "DefaultSampler")])
def test_samplers_give_mmengines_order(dataset, kind, plain):
    count = len(dataset)
    ours, theirs = (
        DATA_SAMPLERS.build({"type": name, "dataset": dataset, "seed": 5, "shuffle": True}) for name in (kind, plain)
    )
    for epoch in range(3):
        ours.set_epoch(epoch)
        theirs.set_epoch(epoch)
        if epoch == 0 or kind == "EpochDraws":
            streams = iter(ours), iter(theirs)
        draws, images = ([*itertools.islice(stream, count)] for stream in streams)
        assert [divmod(draw, count) for draw in draws] == [(epoch, image) for image in images]


class Shapes:
    """A data set of upright and lying images that are not there."""

    def __init__(self, upright: list[bool]) -> None:
        self.upright = upright

    def __len__(self) -> int:
        return len(self.upright)

    def get_data_info(self, draw: int) -> dict:
        return {"width": 10, "height": 20 if self.upright[draw % len(self)] else 5}


@pytest.mark.parametrize("images", [12, 13, 20])
def test_an_epoch_of_groups_goes_on_behind_any_batch(images):
    """The batches of the rest are those that it would have had, whatever waited for more of its kind."""
    sampler = GroupedDraws(Shapes([(i * 7) % 5 < 2 for i in range(images)]), shuffle=True, seed=3)
    batches = AspectRatioBatchSampler(sampler, 3)
    for epoch in range(2):
        sampler.set_epoch(epoch)
        straight = [*batches]
        assert sorted(itertools.chain(*straight)) == [epoch * images + i for i in range(images)]
        for done in range(len(straight) + 1):
            sampler.seen = frozenset(itertools.chain(*straight[:done]))
            assert [*batches] == straight[done:]
        assert [*batches] == straight, "the next epoch begins at its beginning"


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(loader, workers):
    def batches(count: int) -> list[torch.Tensor]:
        loader.num_workers = count
        stream = iter(Runner.build_dataloader(loader, seed=3))
        return [next(stream)["inputs"] for _ in range(7)]

    for own, alone in zip(batches(workers), batches(0), strict=True):
        assert torch.equal(own, alone)


def test_images_are_decoded_once(dataset, tiny_data, monkeypatch):
    load = TRANSFORMS.build({"type": "LoadImageOnce"})
    path = f"{tiny_data.train_images}/train00000.jpg"
    first = load({"img_path": path})
    expected = TRANSFORMS.build({"type": "LoadImageFromFile"})({"img_path": path})
    assert first.keys() == expected.keys()
    np.testing.assert_array_equal(first["img"], expected["img"])
    first["img"][:] = 0
    monkeypatch.setattr("mmcv.transforms.LoadImageFromFile.transform", None)
    np.testing.assert_array_equal(load({"img_path": path})["img"], expected["img"])


def test_images_of_one_size_are_stacked():
    same = [{"inputs": torch.full((3, 4, 6), i), "data_samples": i} for i in range(2)]
    batch = stacked(same)
    assert batch["inputs"].shape == (2, 3, 4, 6)
    assert batch["data_samples"] == [0, 1]
    mixed = stacked([*same, {"inputs": torch.zeros(3, 5, 6), "data_samples": 2}])
    assert [image.shape[1] for image in mixed["inputs"]] == [4, 4, 5]
