"""What a training draws from its data: which image comes when, and how it is augmented, each by numbers of its own.

Draw n of a training is a function of its seed and of n alone. So a training that was killed goes on with the images and
flips that it would have seen, whatever else threw dice meanwhile, and with any number of loading processes.
"""

from __future__ import annotations

# Serves mmcv's operators, which mmdet's data sets import.
import pgd.plugin  # noqa: F401

# isort: split
import itertools
import os
import random
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from mmcv.transforms import LoadImageFromFile
from mmdet.datasets import CocoDataset
from mmdet.registry import DATA_SAMPLERS, DATASETS, TRANSFORMS
from mmengine.dataset import DefaultSampler, InfiniteSampler, pseudo_collate
from mmengine.registry import FUNCTIONS, LOOPS
from mmengine.runner import EpochBasedTrainLoop


def dice(*numbers: int) -> int:
    """A seed that follows from all the numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


@contextmanager
def thrown(*numbers: int) -> Iterator[None]:
    """Within the block numpy's and Python's random numbers follow from ``numbers``; behind it they go on as before."""
    states = np.random.get_state(), random.getstate()
    seed = dice(*numbers)
    np.random.seed(seed)
    random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(states[0])
        random.setstate(states[1])


@DATASETS.register_module()
class DrawnCoco(CocoDataset):
    """COCO images by draw: item ``epoch * len + i`` is image i, augmented as (seed, epoch, i) says.

    Args:
        seed: of the training.
    """

    def __init__(self, *args, seed: int = 0, **kwargs) -> None:
        self.seed = seed
        super().__init__(*args, **kwargs)

    def __getitem__(self, draw: int) -> dict:
        epoch, index = divmod(draw, len(self))
        return self.augmented(index, self.seed, epoch, index)

    def augmented(self, index: int, *numbers: int) -> dict:
        """Image ``index``, augmented as ``numbers`` say."""
        with thrown(*numbers):
            return super().__getitem__(index)

    def get_data_info(self, idx: int) -> dict:
        return super().get_data_info(idx % len(self))


@DATA_SAMPLERS.register_module()
class EpochDraws(DefaultSampler):
    """mmengine's sampler for loops over epochs, giving draws instead of images."""

    #: so many of the next epoch are left out
    skip = 0

    def __iter__(self) -> Iterator[int]:
        draws = (self.epoch * len(self.dataset) + index for index in super().__iter__())
        draws, self.skip = itertools.islice(draws, self.skip, None), 0
        return draws


@LOOPS.register_module()
class ResumedEpochs(EpochBasedTrainLoop):
    """mmengine's loop over epochs, which goes on within one: behind the images that a checkpoint has seen of it."""

    def run_epoch(self) -> None:
        done = self._iter - self._epoch * len(self.dataloader)
        self.runner.call_hook("before_train_epoch")
        self.runner.model.train()
        self.dataloader.sampler.skip = done * self.dataloader.batch_size
        for index, batch in enumerate(self.dataloader, done):
            self.run_iter(index, batch)
        self.runner.call_hook("after_train_epoch")
        self._epoch += 1


@DATA_SAMPLERS.register_module()
class EndlessDraws(InfiniteSampler):
    """mmengine's sampler for loops over iterations, giving draws instead of images."""

    def __iter__(self) -> Iterator[int]:
        places = range(self.rank, 2**62, self.world_size)
        return (place // self.size * self.size + index for place, index in zip(places, self.indices, strict=False))


@TRANSFORMS.register_module()
class LoadImageOnce(LoadImageFromFile):
    """Decodes each file once a process and keeps the pixels: for sets that fit in memory, such as the mini ones."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self._images: dict[str, np.ndarray] = {}

    def transform(self, results: dict) -> dict | None:
        path = results["img_path"]
        if path not in self._images:
            self._images[path] = super().transform({"img_path": path})["img"]
        image = self._images[path]
        # a copy: what comes later may write into it
        return results | {"img": image.copy(), "img_shape": image.shape[:2], "ori_shape": image.shape[:2]}


@FUNCTIONS.register_module()
def stacked(samples: Sequence[dict]) -> dict:
    """Samples as a batch; images of one size become one tensor ``[N, 3, H, W]``, which is normalised at once."""
    batch = pseudo_collate(samples)
    if len({image.shape for image in batch["inputs"]}) == 1:
        batch["inputs"] = torch.stack(batch["inputs"])
    return batch


@FUNCTIONS.register_module()
def outlive(worker_id: int) -> None:
    """To be called in a process that loads data: only its own training ends it, whoever else signals the whole job.

    A step that has begun needs its data; torch takes a loader that is gone for a failure.
    """
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    if not hasattr(signal, "sigwaitinfo"):
        # macOS cannot tell who sent it
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def wait() -> None:
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
            pass
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()
