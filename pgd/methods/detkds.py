"""DetKDS: searched distances of neck features (Li et al., ICML 2024; released ``auto_detkd.py``, ``operations.py``).

Place: FPN outputs, all levels. A search chose, for each detector, what features are turned into before they are
compared. With A(c) = C softmax_c(mean_p|F| / 0.5) of each image and max2 the largest of every 2x2 cells,

    G(F) = max2( sqrt(A(c)) F ), divided by its norm over the images of a group: sqrt(sum_n G(n,c,p)^2)
    L = weight sum_l  w_global mean |G(F^S) - G(F^T)| + w_fg mean |H(M_fg F^S) - H(M_fg F^T)|
                      + w_bg mean |H(M_bg F^S) - H(M_bg F^T)|

M_fg and M_bg are FGD's masks. Means are over all entries. H has two forms:

    patches: every channel is cut into 4x4 cells, each divided by the root of its sum of squares
    masked:  a share ``keep`` of the positions, drawn anew for each of the four maps, each divided by its norm over
             channels; the other positions are 0

Maps whose sides do not fit are filled up with zeros, right and below. A group is ``group`` consecutive images; the last
one of a batch may be smaller. With one image in a group G is just the sign of each value.

Adapters: a 1x1 convolution a level where the widths differ. Shapes: ``F [N, C, H, W]`` a level, masks ``[N, H, W]``.
Needs the ground truth where w_fg or w_bg is not 0.

Settings at full scale, w_global, w_fg, w_bg: GFL 10, 0, 0; FCOS 5, 2, 1 (masked, keep 0.35); RetinaNet with an R101
teacher 6, 2, 1 (patches); two images a GPU. Other detectors take GFL's. What is compared has no scale, and means are
over all entries, so the weights do not depend on the size of the detector; but for the masked form, whose unit vectors
have entries that go with the root of 1/C. That is left to the search of the weight.

Deviations: the release norms G over whatever is on a GPU, so that its loss depends on it; here over groups of the two
images that it had. Its term on boxes (RetinaNet with an X101 teacher, RepPoints) is left out, and so are its forms that
no configuration of a dense head takes. In the masked form M_fg cancels out but for its zeros, as released.
Its students of one stage start with the teacher's neck and head (``inherit``).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from pgd.dense import DistillStep
from pgd.maths.attention import pooled_channel_attention
from pgd.methods.base import METHODS, Method, MethodContext, MethodError, aligners
from pgd.methods.fgd import background_mask, foreground_mask

#: of the channel attention
TEMPERATURE = 0.5
#: side of a patch, in cells
PATCH = 4


def filled_up(features: Tensor, side: int) -> Tensor:
    """``[N, C, H, W]`` with zeros right and below until ``side`` divides H and W."""
    height, width = features.shape[-2:]
    return F.pad(features, (0, -width % side, 0, -height % side))


def global_form(features: Tensor, group: int) -> Tensor:
    """G of the module docstring: ``[N, C, H, W]`` to ``[N, C, ceil(H/2), ceil(W/2)]``."""
    attention = pooled_channel_attention(features, TEMPERATURE)
    pooled = F.max_pool2d(filled_up(features * attention.sqrt()[:, :, None, None], 2), 2)
    return torch.cat([F.normalize(images, dim=0) for images in pooled.split(group)])


def patch_form(features: Tensor) -> Tensor:
    """H with patches: ``[N, C, H, W]`` to ``[N, C, rows, PATCH, columns, PATCH]``."""
    cells = filled_up(features, PATCH).unflatten(3, (-1, PATCH)).unflatten(2, (-1, PATCH))
    return F.normalize(cells, dim=(3, 5))


def kept(features: Tensor, share: float) -> Tensor:
    """Which positions are kept, ``[N, 1, H, W]`` of 0 and 1 for features ``[N, C, H, W]``."""
    drawn = torch.rand(features.size(0), 1, *features.shape[-2:], device=features.device)
    return (drawn <= share).to(features.dtype)


def masked_form(features: Tensor, share: float) -> Tensor:
    """H with a random mask: ``[N, C, H, W]`` to the same."""
    return F.normalize(features * kept(features, share), dim=1)


@METHODS.register_module(name="detkds")
class DetKDS(Method):
    """The distances that were found for GFL, FCOS and RetinaNet.

    Args:
        context: the pair.
        weight: of everything.
        weight_global, weight_fg, weight_bg: of the terms; 0 leaves a term out.
        form: H of foreground and background, patches or masked.
        keep: share of the positions that the masked form keeps.
        group: images that are normed together.
    """

    title, place = "DetKDS", "neck"
    needs = frozenset({"neck", "ground_truth"})
    published = {
        "fcos": {"weight_global": 5.0, "weight_fg": 2.0, "weight_bg": 1.0, "form": "masked"},
        "retinanet": {"weight_global": 6.0, "weight_fg": 2.0, "weight_bg": 1.0},
    }

    def __init__(
        self,
        context: MethodContext,
        weight: float = 1.0,
        weight_global: float = 10.0,
        weight_fg: float = 0.0,
        weight_bg: float = 0.0,
        form: str = "patches",
        keep: float = 0.35,
        group: int = 2,
    ) -> None:
        super().__init__(context)
        if form not in ("patches", "masked"):
            raise MethodError(f"detkds: form '{form}' is not one of patches, masked")
        if not 0 < keep <= 1:
            raise MethodError(f"detkds: keep {keep} is a share of the positions and must be in (0, 1]")
        if group < 1:
            raise MethodError(f"detkds: group {group} is a number of images: give 1 or more")
        self.form, self.keep, self.group = form, keep, group
        self.weight_global, self.weight_fg, self.weight_bg = (weight * w for w in (weight_global, weight_fg, weight_bg))
        if not (self.weight_fg or self.weight_bg):
            self.needs = frozenset({"neck"})
        self.adapters = aligners(context)

    def _local_distance(self, student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
        """Of what H makes of features ``[N, C, H, W]`` under a mask ``[N, H, W]``."""
        both = (features * mask.unsqueeze(1) for features in (student, teacher))
        turned = (patch_form(f) if self.form == "patches" else masked_form(f, self.keep) for f in both)
        return F.l1_loss(*turned)

    def forward(self, step: DistillStep) -> dict[str, Tensor]:
        levels = zip(self.adapters, step.student.neck, step.teacher.neck, strict=True)
        features = [(adapt(s).float(), t.float()) for adapt, s, t in levels]
        terms = {}
        if self.weight_global:
            distances = [F.l1_loss(*(global_form(f, self.group) for f in both)) for both in features]
            terms["loss_detkds_global"] = self.weight_global * sum(distances)
        if not (self.weight_fg or self.weight_bg):
            return terms
        foreground = background = 0.0
        for both in features:
            images = zip(step.gt_boxes, step.image_sizes, strict=True)
            mask = torch.stack([foreground_mask(*image, both[0].shape[-2:]) for image in images])
            foreground = foreground + self._local_distance(*both, mask)
            background = background + self._local_distance(*both, background_mask(mask))
        if self.weight_fg:
            terms["loss_detkds_fg"] = self.weight_fg * foreground
        if self.weight_bg:
            terms["loss_detkds_bg"] = self.weight_bg * background
        return terms
