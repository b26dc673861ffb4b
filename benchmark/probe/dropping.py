"""Detections of a detector of whose predictions (or features) inside the boxes only some were kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from benchmark.probe.analysis import flattened, marked, random_cost, ranks, relative_distance, silenced, wanted
from benchmark.probe.options import MODES, PERCENTS, RESAMPLES
from pgd.dense import Grid, View
from pgd.maths.regions import Objects, PairQuality, Pairs, Predictions, inside_pairs
from pgd.tape import Tape

#: Positions of all settings that the head runs on at one time: bounds the memory.
AT_ONCE = 2**16
#: settings at once at most: mmcv's deformable convolutions take batches of up to this, or multiples of it
DEFORMABLE = 32


@dataclass(frozen=True)
class Options:
    """What is kept, and what happens to the rest."""

    percents: tuple[float, ...] = PERCENTS
    modes: tuple[str, ...] = MODES
    #: balance of localisation against classification in the quality
    xi: float = 0.8
    #: one random selection each
    seeds: tuple[int, ...] = (0, 1, 2)
    #: of the images, for the intervals
    resamples: int = RESAMPLES

    @property
    def rankings(self) -> list[tuple[str, int | None]]:
        """Selection, and its seed where it is random."""
        return [("top", None), *(("random", seed) for seed in self.seeds), ("central", None), ("worst", None)]

    @property
    def fractions(self) -> list[float]:
        """The shares, 0..1."""
        return [percent / 100 for percent in self.percents]

    @property
    def settings(self) -> int:
        """S, rankings times shares."""
        return len(self.rankings) * len(self.percents)


class Chosen(NamedTuple):
    """What the settings keep in one image."""

    #: bool ``[S, P A]``, of the predictions in any box; by ranking, then by share
    kept: Tensor
    #: bool ``[P A]``, in any box
    in_box: Tensor
    #: predictions in each box ``[G]``
    counts: Tensor


def choose(
    view: View,
    image: int,
    objects: Objects,
    options: Options,
    number: int,
    mode: str = "predictions",
) -> Chosen:
    """Rank what is in the boxes of one image of a batch and keep the shares of ``options``.

    In mode ``features`` these are positions, ``[S, P]`` and ``[P]``, each as good as the best of its predictions.

    Args:
        view: predictions of the batch.
        image: its index in the batch.
        objects: of the image.
        options: says what to keep.
        number: of the image in the data set, for the dice.
        mode: one of :data:`MODES`.
    """
    grid = view.grid
    pairs = inside_pairs(grid.centers, objects.boxes, grid.levels)
    own = grid.valid[image][pairs.position]
    places = Pairs(pairs.position[own], pairs.box[own])
    pairs, centers = places.repeated(grid.per_position), grid.prediction_centers
    predictions = Predictions(view.scores[image], view.boxes[image], centers)
    values = PairQuality.of(predictions, objects, pairs).quality(options.xi)
    if mode == "features":
        values, pairs, centers = values.unflatten(0, (-1, grid.per_position)).amax(dim=1), places, grid.centers
    counts = torch.bincount(pairs.box, minlength=len(objects.boxes))
    limits = wanted(counts, options.fractions)[:, pairs.box]
    masks = []
    for selection, seed in options.rankings:
        if selection == "random":
            cost = random_cost(pairs, seed, number)
        elif selection == "central":
            cost = relative_distance(centers, objects.boxes, pairs)
        else:
            cost = -values if selection == "top" else values
        masks.append(marked(ranks(cost, pairs.box) < limits, pairs, len(centers)))
    every = torch.ones(1, len(pairs.box), dtype=torch.bool, device=pairs.box.device)
    return Chosen(torch.cat(masks), marked(every, pairs, len(centers))[0], counts)


class Dropper:
    """Detections of a detector of whose in-box predictions (or features) some were dropped."""

    def __init__(self, model: nn.Module) -> None:
        self.head, self.tape = model.bbox_head, Tape(model)
        self.preprocess, self.extract = model.data_preprocessor, model.extract_feat

    def look(self, batch: dict) -> tuple[View, list[dict]]:
        """Run the detector once; keeps the record for :meth:`detect`."""
        data = self.preprocess(batch, False)
        with self.tape.recording():
            self.head(self.extract(data["inputs"]))
        metas = [sample.metainfo for sample in data["data_samples"]]
        grid = self.tape.reader.grid([f.shape[-2:] for f in self.tape.neck], metas, data["inputs"].device)
        return self.tape.view(grid, {"predictions"}), metas

    def detect(self, mode: str, dropped: Tensor, grid: Grid, image: int, meta: dict) -> list[Tensor]:
        """Detections ``[D, 6]`` (boxes in pixels of the original image, scores, labels) by setting.

        Args:
            mode: one of :data:`MODES`.
            dropped: bool ``[S, P A]``, or ``[S, P]`` for features.
            grid: of the batch.
            image: which of the batch.
            meta: what the pipeline says about it.
        """
        masks, which = torch.unique(dropped, dim=0, return_inverse=True)
        outputs = [[level[image : image + 1] for level in branch] for branch in self.tape.outputs]
        found = []
        for part in masks.split(max(1, min(DEFORMABLE, AT_ONCE // len(grid.centers)))):
            changed = [[level.expand(len(part), -1, -1, -1) for level in branch] for branch in outputs]
            if mode == "predictions":
                changed[0] = silenced(outputs[0], part, grid)
            elif part.any():
                touched = part.any(dim=1)[:, None, None, None]
                pairs = zip(self._run_on(part, grid, image), changed, strict=True)
                # the last bits of a convolution change with the batch; where nothing is dropped, nothing changes
                changed = [[torch.where(touched, *both) for both in zip(*pair, strict=True)] for pair in pairs]
            found += self.head.predict_by_feat(*changed, batch_img_metas=[meta] * len(part), rescale=True)
        found = [torch.cat((f.bboxes, f.scores[:, None], f.labels[:, None]), dim=1).cpu() for f in found]
        return [found[i] for i in which.tolist()]

    def _run_on(self, dropped: Tensor, grid: Grid, image: int) -> Sequence:
        """What the head says when the dropped positions have nothing to tell."""
        towers = [
            flattened([level[image : image + 1] for level in tower], dropped, grid.valid[image], grid)
            for tower in self.tape.towers
        ]
        neck = [level[image : image + 1].expand(len(dropped), -1, -1, -1) for level in self.tape.neck]
        return self.tape.reader.outputs_from(neck, *towers)
