"""ICD: instance-conditional distillation (Kang et al., NeurIPS 2021, arXiv 2110.12724; released ``distiller.py``,
``teacher.py``).

Place: neck features of all levels, together. A decoder learns on the teacher's features to tell real objects from
made-up ones and to find their sides; where it looks for an object says where the teacher's knowledge of it lies. K
instances an image, the real ones R and fakes, G real ones in the batch; h heads of d = C/h channels:

    query_i = MLP(one-hot class, sine embedding of a point, one-hot sizes)
    a_hip = <W_q query_i, W_k (F^T_p + W_e e_p)>_h / sqrt(d),   v^T_hp = (W_v F^T_p)_h,   v^S_hp = (W_s F^S_p)_h
    output_i = the query through one layer of a transformer's decoder without self-attention
    L_identify = mean_i BCE(MLP(output_i), 1[i in R])
    L_locate = 1/G sum_{i in R} sum_{4 sides} |sigma(MLP(output_i)) - distance of point and side| / (width or height)
    M_hp = sum_{i in R} softmax_p(a_hip) without gradient
    L_icd = weight mean_{n,h,c} [ sum_p M_hp (LN(v^S_hp)_c - LN(v^T_hp)_c)^2 / sum_p M_hp ]

A point lies within 0.3 widths and heights of its box's centre, at random; points and boxes are in shares of the image,
e_p embeds the place of a cell on its level likewise, and padding is not attended to. LN has no parameters; v^T takes no
gradient from L_icd. For the first ``warmup`` iterations F^S takes none either, and L_icd trains W_s alone. There are
five fakes to a real instance, one in an image without any, at most 300 instances together: classes and centres uniform,
sides from a normal distribution (the release's rule for data other than COCO).

G and the mean of L_identify are over the instances on one GPU: two processes with half a batch each give the plain mean
of theirs, in which those of the half with fewer objects weigh more; L_icd is that of the whole batch.

Shapes: neck features ``[N, C, H, W]`` a level, attention ``[N, h, K, P]``, values ``[N, h, P, d]``. Needs ground truth.
W_s goes from the student's width to the teacher's. All of the decoder belongs to the method.

Settings at full scale: weight 8, h 8, warmup 1000 iterations (RetinaNet, FCOS and two-stage detectors; not published on
others). L_icd is a mean; ``warmup`` goes with that of the learning rate.

Deviations: the release trains the decoder by an optimiser of its own (AdamW, rate 1e-4, gradients clipped to 0.01);
here the student's trains it. On COCO the release draws fakes by frequency and size of the classes. Keys and embedded
places have no bias, which a softmax over positions would not see. A box counts as at least a thousandth of the image
wide and high where the release divides by 1e-7. Inheriting neck and head, as in the release, is a setting of the run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from pgd.dense import DistillStep
from pgd.methods.base import METHODS, Method, MethodContext, MethodError

#: Channels that embed a coordinate of an instance's point.
POINT_CHANNELS = 128
#: Log-2 size classes of a side: up to 64, 128, 256, 512 pixels, and above.
SIZE_CLASSES = 5
#: Instances of an image, fakes included, unless more of them are real.
MOST = 300
JITTER = 0.3


class Instances(NamedTuple):
    """What is asked for in a batch of N images, K each."""

    #: class indices ``[N, K]``
    labels: Tensor
    #: boxes ``[N, K, 4]`` xyxy and points ``[N, K, 2]``, in shares of the image without padding
    boxes: Tensor
    points: Tensor
    #: bool ``[N, K]``: an object of the image; and: exists at all (real or fake)
    real: Tensor
    exists: Tensor


def count_with_fakes(objects: int, ratio: float) -> int:
    """Instances of an image with so many objects, for ``ratio`` fakes to a real one."""
    return min(max(1 if ratio else 0, int(objects * (ratio + 1))), max(MOST, objects))


def draw_instances(
    boxes: Sequence[Tensor],
    labels: Sequence[Tensor],
    image_sizes: Sequence[tuple[int, int]],
    num_classes: int,
    ratio: float,
    jitter: float = JITTER,
) -> Instances:
    """The objects of every image first, then fakes.

    Args:
        boxes: per image ``[G, 4]`` xyxy pixels.
        labels: per image ``[G]``.
        image_sizes: per image (height, width) without padding.
        num_classes: classes to draw from.
        ratio: fakes to a real one.
        jitter: how far a point may lie off the centre, in sides of the box.
    """
    device, counts = boxes[0].device, [len(own) for own in boxes]
    totals = torch.tensor([count_with_fakes(count, ratio) for count in counts], device=device)
    shape = len(counts), max(count_with_fakes(count, ratio) for count in counts)
    index = torch.arange(shape[1], device=device)
    real, exists = index < torch.tensor(counts, device=device)[:, None], index < totals[:, None]
    centers = torch.rand(*shape, 2, device=device).clamp(0.03, 0.97)
    sides = (0.2 + 0.2 * torch.randn(*shape, 2, device=device)).clamp(2e-3, 0.6)
    fakes = torch.cat((centers - sides / 2, centers + sides / 2), dim=-1).clamp(0, 1)
    fake_labels = torch.randint(num_classes, shape, device=device)
    scale = torch.tensor([(w, h, w, h) for h, w in image_sizes], dtype=torch.float32, device=device)[:, None]
    missing = shape[1] - max(counts)
    own = F.pad(pad_sequence([b.float() for b in boxes], batch_first=True), (0, 0, 0, missing)) / scale
    own_labels = F.pad(pad_sequence(list(labels), batch_first=True), (0, missing))
    chosen = torch.where(real[..., None], own, fakes)
    near, far = chosen.unflatten(-1, (2, 2)).unbind(dim=-2)
    offset = (2 * torch.rand(*shape, 2, device=device) - 1) * jitter * (far - near)
    return Instances(torch.where(real, own_labels, fake_labels), chosen, (near + far) / 2 + offset, real, exists)


def sine_embedding(shares: Tensor, channels: int, temperature: float = 1e4) -> Tensor:
    """``channels`` sines and cosines of each share of a turn: ``[...]`` to ``[..., channels]``."""
    octave = torch.arange(0, channels, 2, device=shares.device) / channels
    angle = 2 * math.pi * shares.float()[..., None] / temperature**octave
    return torch.cat((angle.sin(), angle.cos()), dim=-1)


def level_places(
    size: tuple[int, int], stride: int, image_sizes: Sequence[tuple[int, int]], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Where the cells of a level stand: shares ``[N, H W, 2]`` (y, x) of the image, and which lie in it (bool)."""
    inside = torch.tensor([(math.ceil(h / stride), math.ceil(w / stride)) for h, w in image_sizes], device=device)
    y, x = torch.meshgrid(*(torch.arange(1, n + 1, device=device) for n in size), indexing="ij")
    cells, inside = torch.stack((y, x), dim=-1).flatten(0, 1), inside[:, None]
    return torch.minimum(cells, inside) / inside, (cells <= inside).all(dim=-1)


def descriptors(instances: Instances, image_sizes: Sequence[tuple[int, int]], num_classes: int) -> Tensor:
    """What a query is made from: class, point, sizes; ``[N, K, num_classes + 2 POINT_CHANNELS + 2 SIZE_CLASSES]``."""
    scale = instances.boxes.new_tensor([(w, h) for h, w in image_sizes])[:, None]
    near, far = instances.boxes.unflatten(-1, (2, 2)).unbind(dim=-2)
    octave = (((far - near) * scale).clamp(min=1).log2() - 5).clamp(0, SIZE_CLASSES - 1).long()
    parts = (
        F.one_hot(instances.labels, num_classes).float(),
        sine_embedding(instances.points, POINT_CHANNELS).flatten(-2),
        F.one_hot(octave, SIZE_CLASSES).float().flatten(-2),
    )
    return torch.cat(parts, dim=-1)


def value_distance(student: Tensor, teacher: Tensor, attention: Tensor) -> Tensor:
    """L_icd without its weight: values ``[N, h, P, d]``, M ``[N, h, P]``; an image without M counts as zero."""
    student, teacher = (F.layer_norm(v.float(), v.shape[-1:]) for v in (student, teacher))
    # no matrix product: autocast would take it in half precision
    total = (attention[..., None] * (student - teacher).square()).sum(dim=2)
    return (total / attention.sum(dim=-1, keepdim=True).clamp(min=1e-6)).mean()


def _mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, outputs)
    )


class Decoder(nn.Module):
    """One layer of a transformer's decoder without self-attention: instances look at the teacher's features."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.value, self.out = (nn.Linear(channels, channels) for _ in range(3))
        self.key, self.place = (nn.Linear(channels, channels, bias=False) for _ in range(2))
        self.widen, self.narrow = nn.Linear(channels, 4 * channels), nn.Linear(4 * channels, channels)
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        for layer in (self.query, self.key, self.value):
            # as one matrix of three times the outputs
            nn.init.xavier_uniform_(layer.weight, gain=0.5**0.5)
        for layer in (self.query, self.value, self.out):
            nn.init.zeros_(layer.bias)

    def split(self, flat: Tensor) -> Tensor:
        """``[N, L, C]`` to heads ``[N, h, L, d]``."""
        return flat.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(self, queries: Tensor, features: Tensor, places: Tensor, inside: Tensor) -> tuple[Tensor, ...]:
        """Outputs ``[N, K, C]``, attention over positions ``[N, h, K, P]``, values ``[N, h, P, d]``.

        Args:
            queries: ``[N, K, C]``.
            features: ``[N, P, C]``.
            places: their embeddings, likewise.
            inside: bool ``[N, P]``: not in the padding.
        """
        query, value = self.split(self.query(queries)), self.split(self.value(features))
        key = self.split(self.key(features + self.place(places)))
        logits = (query @ key.mT).float() * query.size(-1) ** -0.5
        attention = logits.masked_fill(~inside[:, None, None], -math.inf).softmax(dim=-1)
        looked = self.out((attention.to(value.dtype) @ value).transpose(1, 2).flatten(2))
        outputs = self.norm1(queries + looked)
        return self.norm2(outputs + self.narrow(F.relu(self.widen(outputs)))), attention, value


@METHODS.register_module(name="icd")
class ICD(Method):
    """Distils features where a decoder looks for the objects.

    Args:
        context: the pair.
        weight: of L_icd; the decoder's own losses have a weight of 1.
        warmup: iterations until the student's features take gradient.
        heads: h.
        fakes: made-up instances to a real one.
        jitter: how far a point may lie off the centre, in sides of the box.
    """

    title, place = "ICD", "neck"
    needs = frozenset({"neck", "ground_truth"})
    scaling = {"warmup": {"warmup": 1}}

    def __init__(
        self,
        context: MethodContext,
        weight: float = 8.0,
        warmup: int = 1000,
        heads: int = 8,
        fakes: float = 5.0,
        jitter: float = JITTER,
    ) -> None:
        super().__init__(context)
        channels = context.teacher_channels
        if channels % heads or channels % 4:
            raise MethodError(
                f"icd: the teacher's {channels} channels cannot be split into {heads} heads and 4 parts of an "
                "embedding: set heads to a divisor, and take a teacher whose channels are a multiple of 4"
            )
        self.weight, self.warmup, self.fakes, self.jitter = weight, warmup, fakes, jitter
        described = context.num_classes + 2 * POINT_CHANNELS + 2 * SIZE_CLASSES
        self.encoder, self.predictor = _mlp(described, channels, channels), _mlp(channels, channels, 5)
        self.decoder = Decoder(channels, heads)
        self.student_value = nn.Linear(context.student_channels, channels)
        nn.init.xavier_uniform_(self.student_value.weight, gain=0.5**0.5)
        nn.init.zeros_(self.student_value.bias)
        self.register_buffer("iteration", torch.zeros((), dtype=torch.long))

    def _places(self, step: DistillStep) -> tuple[Tensor, Tensor]:
        """Embeddings ``[N, P, C]`` of all positions, and which are not padding."""
        grid, device, channels = step.grid, step.grid.centers.device, self.context.teacher_channels
        levels = zip(grid.sizes, self.context.strides, strict=True)
        shares, inside = zip(*(level_places(*level, step.image_sizes, device) for level in levels), strict=True)
        return sine_embedding(torch.cat(shares, dim=1), channels // 2).flatten(-2), torch.cat(inside, dim=1)

    def _decoder_losses(self, outputs: Tensor, instances: Instances) -> dict[str, Tensor]:
        """L_identify and L_locate; ``outputs [N, K, C]``."""
        guess = self.predictor(outputs).float()
        real, exists = instances.real.float(), instances.exists.float()
        entropy = F.binary_cross_entropy_with_logits(guess[..., 0], real, reduction="none")
        near, far = instances.boxes.unflatten(-1, (2, 2)).unbind(dim=-2)
        sides = torch.cat((instances.points - near, far - instances.points), dim=-1)
        error = (guess[..., 1:].sigmoid() - sides).abs() / (far - near).clamp(min=1e-3).repeat(1, 1, 2)
        return {
            "loss_icd_identify": (entropy * exists).sum() / exists.sum().clamp(min=1),
            "loss_icd_locate": torch.where(instances.real[..., None], error, 0.0).sum() / real.sum().clamp(min=1),
        }

    def forward(self, step: DistillStep) -> dict[str, Tensor]:
        own, theirs = (
            torch.cat([level.flatten(2).mT for level in view.neck], dim=1) for view in (step.student, step.teacher)
        )
        classes, sizes = self.context.num_classes, step.image_sizes
        instances = draw_instances(step.gt_boxes, step.gt_labels, sizes, classes, self.fakes, self.jitter)
        queries = self.encoder(descriptors(instances, sizes, classes))
        outputs, attention, value = self.decoder(queries, theirs, *self._places(step))
        terms = self._decoder_losses(outputs, instances)
        if not self.weight:
            return terms
        objects = max(len(boxes) for boxes in step.gt_boxes)
        wanted = attention.detach()[:, :, :objects] * instances.real[:, None, :objects, None]
        # chosen on the device: asking for the count would wait for it
        own = torch.where(self.iteration >= self.warmup, own, own.detach())
        student_value = self.decoder.split(self.student_value(own))
        distance = value_distance(student_value, value.detach(), wanted.sum(dim=2))
        if self.training:
            self.iteration += 1
        return {"loss_icd": self.weight * distance, **terms}
