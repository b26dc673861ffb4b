"""Epochs of batches whose images are grouped, as COCO's are by upright and lying ones, and how they go on within one.

A config names both classes by their full names, so that only a training that needs them imports this. The loop would
serve all epochs, in place of draws.py's; but a change of that file makes every training another one by its digest.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from mmengine.runner import EpochBasedTrainLoop

from benchmark.training.draws import EpochDraws


class GroupedDraws(EpochDraws):
    """Draws of an epoch, but for those that a checkpoint has seen, which are not its first ones."""

    #: left out of the next epoch
    seen: frozenset[int] = frozenset()

    def __iter__(self) -> Iterator[int]:
        seen, self.seen = self.seen, frozenset()
        return (draw for draw in super().__iter__() if draw not in seen)


class GroupedEpochs(EpochBasedTrainLoop):
    """mmengine's loop over epochs, which goes on within one: behind the batches that a checkpoint has seen of it.

    What is left of a group waits for the next of its kind, so that a batch is not the next few draws; but the draws
    that no batch of the beginning has taken, in their order, make the batches of the rest.
    """

    def run_epoch(self) -> None:
        done = self._iter - self._epoch * len(self.dataloader)
        self.runner.call_hook("before_train_epoch")
        self.runner.model.train()
        batches = self.dataloader.batch_sampler
        if done:
            # to the end: only there a grouping sampler forgets what is left of its groups
            batches.sampler.seen = frozenset(itertools.chain.from_iterable([*batches][:done]))
        for index, batch in enumerate(self.dataloader, done):
            self.run_iter(index, batch)
        self.runner.call_hook("after_train_epoch")
        self._epoch += 1
