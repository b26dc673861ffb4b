"""GFL and LD heads: joint class-quality logits; each box side is a distribution over distances in strides."""

from __future__ import annotations

from collections.abc import Sequence

from mmdet.models.dense_heads import GFLHead
from mmdet.structures.bbox import distance2bbox
from torch import Tensor

from pgd.dense import Grid, HeadReader, flatten_levels, reads


@reads(GFLHead)
class GFLReader(HeadReader):
    """A side's distance is the mean of its distribution, times the position's stride."""

    @property
    def bins(self) -> int:
        return self.head.reg_max + 1

    def distributions(self, outputs: Sequence) -> Tensor:
        return flatten_levels(outputs[1], 4 * self.bins).unflatten(-1, (4, self.bins))

    def boxes(self, outputs: Sequence, grid: Grid) -> Tensor:
        # no matrix product: autocast would take it in half precision, pixels off on the coarse levels
        distances = (self.distributions(outputs).softmax(dim=-1) * self.head.integral.project).sum(dim=-1)
        centers = grid.centers.expand(distances.size(0), -1, -1)
        return distance2bbox(centers, distances * grid.strides[..., None])
