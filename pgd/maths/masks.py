"""Foreground masks: PGD's Gaussian weights and the simpler ones that the ablation compares with them.

P predictions over all levels, G boxes xyxy in input pixels, X values of xi; M pairs of a prediction and a box that its
position lies strictly inside of. Each mask gives every pair a weight of 0..1; a position in several boxes gets the
largest, a position in none gets 0. The top-K of a box are its K predictions of highest quality over all levels, or all
where it has fewer. With q the quality and (cx, cy), w, h centre and sides of the box:

| mask | weight | largest weight of a box | uses |
|---|---|---|---|
| ``box`` | 1 | 1 | |
| ``box_gaussian`` | exp(-6 [((x-cx)/w)^2 + ((y-cy)/h)^2]), whose sigma is side / sqrt 12 | 1 at the centre | |
| ``center`` | 1 where abs(x-cx) and abs(y-cy) are below 1.5 strides of the position's level | 1 | strides |
| ``quality`` | q | max q | xi |
| ``topk`` | 1 on the top-K | 1 | xi, K |
| ``kde`` | density of the top-K on the top-K, over its maximum | 1 | xi, K |
| ``pgw`` | PGD's Gaussian on the top-K (:mod:`pgd.maths.regions`) | 1 at the top-K's mean | xi, K |

None is divided by a sum here: PGD's losses divide by the count of non-zero weights, so the masks differ in mean weight,
too, and with it in how strong the foreground term is; :func:`at_mean` makes them equal in that. ``box_gaussian``,
``center`` and ``kde`` have constants of our own: those of the paper's ablation are not known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from pgd.maths.regions import (
    RIDGE,
    Objects,
    PairQuality,
    Pairs,
    Predictions,
    heaviest,
    heaviest_by_xi,
    inside_pairs,
    weights_of_pairs,
)

#: Standard deviation of ``box_gaussian`` in sides of the box: that of positions spread evenly over it, whose
#: maximum-likelihood Gaussian (``pgw`` with a K that takes in the whole box) this is.
BOX_SIGMA = 12**-0.5
#: Half the side of ``center``, in strides: FCOS's region for center sampling, here on every level.
CENTER_RADIUS = 1.5


@dataclass(frozen=True)
class Candidates:
    """The in-box predictions of an image (or of several, one after the other), of which a mask is made."""

    #: of the teacher, with strides
    predictions: Predictions
    objects: Objects
    #: which prediction lies in which box
    pairs: Pairs
    #: X balances of localisation against classification
    xis: Sequence[float]
    #: K
    topk: int
    #: of ``pgw`` as released, see :func:`pgd.maths.regions.gaussian_weights`
    jitter: float = 0.0

    @property
    def centers(self) -> Tensor:
        """``[P, 2]`` positions (x, y), pixels."""
        return self.predictions.centers

    @cached_property
    def quality(self) -> PairQuality:
        return PairQuality.of(self.predictions, self.objects, self.pairs)

    @cached_property
    def top(self) -> tuple[Tensor, Tensor]:
        """Every box's top-K: indices ``[K, X, G]`` and whether they exist."""
        return self.quality.top(self.pairs, len(self.objects.boxes), self.xis, self.topk)

    @cached_property
    def offsets(self) -> tuple[Tensor, Tensor]:
        """From the box's centre to the position ``[M, 2]``, and the box's sides ``[M, 2]``, pixels."""
        near, far = self.objects.boxes[self.pairs.box].split(2, dim=1)
        return self.centers[self.pairs.position] - (near + far) / 2, far - near

    def on_positions(self, weights: Tensor) -> Tensor:
        """Weights ``[M]`` of the pairs, the same for every xi, as a map ``[X, P]``."""
        flat = heaviest(weights.to(self.centers.dtype), self.pairs.position, len(self.centers))
        return flat.expand(len(self.xis), -1)


def box(candidates: Candidates) -> Tensor:
    """The whole box."""
    return candidates.on_positions(torch.ones_like(candidates.pairs.box))


def box_gaussian(candidates: Candidates) -> Tensor:
    """A Gaussian centred on the box, as wide as the box for its height, whatever the teacher says."""
    offset, sides = candidates.offsets
    return candidates.on_positions((-0.5 * (offset / (BOX_SIGMA * sides)) ** 2).sum(dim=1).exp())


def center(candidates: Candidates) -> Tensor:
    """The middle of the box: at most 3 x 3 positions of each level, less where the box is smaller."""
    radius = CENTER_RADIUS * candidates.predictions.strides[candidates.pairs.position]
    return candidates.on_positions(candidates.offsets[0].abs().amax(dim=1) < radius)


def quality(candidates: Candidates) -> Tensor:
    """The quality itself (PGD eq. 1), over the whole box."""
    return torch.stack([candidates.on_positions(candidates.quality.quality(xi))[0] for xi in candidates.xis])


def topk(candidates: Candidates) -> Tensor:
    """The top-K, equally."""
    index, exists = candidates.top
    return heaviest_by_xi(exists.to(candidates.centers.dtype), index, len(candidates.centers))


def kde(candidates: Candidates) -> Tensor:
    """Density of a box's top-K, estimated from and at their positions, relative to its maximum over them.

    Kernel: the product of a Gaussian in x and one in y, of Scott's bandwidth ``std n^(-1/6)`` for the n positions there
    are. The variances are those of ``pgw``: biased, with its ridge.
    """
    index, exists = candidates.top
    member = exists.double()
    count = member.sum(dim=0).clamp(min=1)
    distance = 0.0
    for axis in candidates.centers[index].double().unbind(dim=-1):
        mean = (axis * member).sum(dim=0) / count
        variance = ((axis - mean) ** 2 * member).sum(dim=0) / count + RIDGE
        # [K, K, X, G]: from where the density is asked for to where a kernel stands
        distance = distance + (axis[:, None] - axis) ** 2 / (variance * count ** (-1 / 3))
    density = ((-0.5 * distance).exp() * member).sum(dim=1) * member
    # a position has at least its own kernel, which is 1
    weights = density / density.amax(dim=0).clamp(min=1)
    return heaviest_by_xi(weights.to(candidates.centers.dtype), index, len(candidates.centers))


def pgw(candidates: Candidates) -> Tensor:
    """PGD's prediction-guided weights (section 3.2)."""
    c = candidates
    return weights_of_pairs(c.quality, c.pairs, c.centers, len(c.objects.boxes), c.xis, c.topk, c.jitter)


#: From the name of a mask to what computes it: ``[X, P]`` of at least one pair.
MASKS: dict[str, Callable[[Candidates], Tensor]] = {
    f.__name__: f for f in (box, box_gaussian, center, quality, topk, kde, pgw)
}


def mask_maps(kind: str, candidates: Candidates) -> Tensor:
    """The mask of this name for every xi, ``[X, P]``; zeros where no position lies in a box."""
    if kind not in MASKS:
        raise ValueError(f"no mask '{kind}'; there are: {', '.join(MASKS)}")
    if not len(candidates.pairs.box):
        return candidates.centers.new_zeros(len(candidates.xis), len(candidates.centers))
    return MASKS[kind](candidates)


def mask(kind: str, predictions: Predictions, objects: Objects, xi: float, topk: int) -> Tensor:
    """One mask of one image, ``[P]``; ``predictions`` with strides.

    Raises ValueError where there is no mask of this ``kind``.
    """
    pairs = inside_pairs(predictions.centers, objects.boxes)
    return mask_maps(kind, Candidates(predictions, objects, pairs, (xi,), topk))[0]


def at_mean(masks: Tensor, mean: float) -> Tensor:
    """Masks ``[N, H, W]``, each scaled so that its non-zero weights have this mean; one without any stays empty."""
    count, total = (masks != 0).sum(dim=(1, 2), keepdim=True), masks.sum(dim=(1, 2), keepdim=True)
    return masks * (mean * count / total.clamp(min=torch.finfo(masks.dtype).tiny))
