"""Time PGD's weight maps: object by object as released, dense, and as the library does it.

``python -m tools.speed_maps`` measures both weight maps and the background of one 1333 x 800 image (22,300 positions,
80 classes). All variants have the library's default semantics, and their values are compared before they are timed.
Times vary with what else runs on the machine; the variants take turns, so that their ratios are fair. A turn is some
calls in a row, as for the images of a batch.
"""

from __future__ import annotations

if __name__ == "__main__":
    # help and usage errors come before the imports that take seconds
    from benchmark.experiment.cli import answer_early

    answer_early("speed_maps", "tools")

import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor

from benchmark.experiment.cli import command_parser, run_cli
from pgd.dense import Grid
from pgd.maths.regions import RIDGE, Objects, Predictions, background_mask, gaussian_weights, inside, quality
from pgd.methods.base import MethodContext
from pgd.methods.pgd import PGD

SIZES = ((100, 167), (50, 84), (25, 42), (13, 21), (7, 11))
STRIDES = (8, 16, 32, 64, 128)
WIDTH, HEIGHT, CLASSES = 1333, 800, 80
#: side of the smallest and of the largest object, pixels
SMALLEST, LARGEST = 8.0, 640.0
TOLERANCE = 1e-4
#: seconds
TURN = 0.05

Maps = tuple[Tensor, Tensor, Tensor]
Scene = tuple[Grid, Tensor, Tensor, Tensor, Tensor]


class Disagreement(ValueError):
    """Two variants give different maps; the sentence says where."""


def scene(objects: int, seed: int = 0) -> Scene:
    """A grid and what the maps of an image need: scores, boxes, objects with log-uniform sides, their classes."""
    g = torch.Generator().manual_seed(seed)
    centers, strides = [], []
    for (h, w), stride in zip(SIZES, STRIDES, strict=True):
        y, x = torch.meshgrid(torch.arange(h) + 0.5, torch.arange(w) + 0.5, indexing="ij")
        centers.append(stride * torch.stack((x.flatten(), y.flatten()), dim=1))
        strides.append(torch.full((h * w,), float(stride)))
    points, stride = torch.cat(centers), torch.cat(strides)
    grid = Grid(points, stride, SIZES, torch.ones(1, len(points), dtype=torch.bool), None)
    scores = torch.sigmoid(2 * torch.randn(len(points), CLASSES, generator=g) - 4)
    # a level's predictions are some strides wide, as those of a trained detector
    reach = stride[:, None] * torch.exp(0.5 * torch.randn(len(points), 4, generator=g)) * 3
    boxes = torch.cat((points - reach[:, :2], points + reach[:, 2:]), dim=1)
    side = SMALLEST * (LARGEST / SMALLEST) ** torch.rand(objects, 2, generator=g)
    corner = torch.rand(objects, 2, generator=g) * (torch.tensor([WIDTH, HEIGHT]) - side)
    labels = torch.randint(CLASSES, (objects,), generator=g)
    return grid, scores, boxes, torch.cat((corner, corner + side), dim=1), labels


def one_by_one(method: PGD, grid: Grid, scores: Tensor, boxes: Tensor, gt_boxes: Tensor, gt_labels: Tensor) -> Maps:
    """Each map by itself, each object against every position, as in the released code."""
    points = grid.centers

    def distances(box: Tensor) -> Tensor:
        sides = (points[:, 0] - box[0], points[:, 1] - box[1], box[2] - points[:, 0], box[3] - points[:, 1])
        return torch.stack(sides, dim=1)

    def weights(xi: float) -> Tensor:
        total = points.new_zeros(len(points))
        for box, label in zip(gt_boxes, gt_labels, strict=True):
            low, high = torch.maximum(boxes[:, :2], box[:2]), torch.minimum(boxes[:, 2:], box[2:])
            overlap = (high - low).clamp(min=0).prod(dim=1)
            union = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1) + (box[2:] - box[:2]).prod() - overlap
            value = scores[:, label] ** (1 - xi) * (overlap / union.clamp(min=1e-6)) ** xi
            within = distances(box).amin(dim=1) > 1e-10
            best, index = value.masked_fill(~within, -1).topk(min(method.topk, len(points)))
            index = index[best >= 0]
            if not len(index):
                continue
            # as many digits as the library has, or a straight row of points would not agree
            chosen = points[index].double()
            offset = chosen - chosen.mean(dim=0)
            cov = offset.T @ offset / len(index) + RIDGE * torch.eye(2, dtype=torch.float64)
            weight = torch.exp(-0.5 * ((offset @ cov.inverse()) * offset).sum(dim=1)).float()
            own = torch.zeros_like(total).index_put_((index,), weight)
            total = torch.maximum(total, own)
        return total

    def background() -> Tensor:
        outside = torch.ones(len(points), dtype=torch.bool)
        for box in gt_boxes:
            outside &= ~(distances(box).amin(dim=1) > 1e-10)
        return outside.float()

    return weights(method.xi_cls), weights(method.xi_reg), background()


def dense(method: PGD, grid: Grid, scores: Tensor, boxes: Tensor, gt_boxes: Tensor, gt_labels: Tensor) -> Maps:
    """All objects at once, but every one against every position."""
    points, objects = grid.centers, Objects(gt_boxes, gt_labels)
    within = inside(points, gt_boxes)

    def weights(xi: float) -> Tensor:
        value = quality(Predictions(scores, boxes, points), objects, xi).masked_fill(~within, -1)
        best, index = value.topk(min(method.topk, len(points)), dim=0)
        weight = gaussian_weights(points[index], best >= 0, RIDGE)
        return points.new_zeros(len(points)).scatter_reduce(0, index.flatten(), weight.flatten(), reduce="amax")

    return weights(method.xi_cls), weights(method.xi_reg), background_mask(points, gt_boxes)


def library(method: PGD, grid: Grid, scores: Tensor, boxes: Tensor, gt_boxes: Tensor, gt_labels: Tensor) -> Maps:
    """What trainings do, for a batch of one image."""
    return tuple(m[0] for m in method.maps(grid, scores[None], boxes[None], [Objects(gt_boxes, gt_labels)]))


def pgd() -> PGD:
    """The method with its defaults."""
    context = MethodContext(256, 256, 256, 256, len(STRIDES), CLASSES, STRIDES, None)
    return PGD(context)


VARIANTS: dict[str, Callable[..., Maps]] = {
    "one by one": one_by_one,
    "dense": dense,
    "library": library,
}


def compare(objects: int, seed: int = 0) -> None:
    """Raise :class:`Disagreement` unless all variants give the same maps."""
    method, arguments = pgd(), scene(objects, seed)
    expected, *others = (variant(method, *arguments) for variant in VARIANTS.values())
    for name, maps in zip(list(VARIANTS)[1:], others, strict=True):
        for kind, ours, theirs in zip(("cls", "reg", "background"), maps, expected, strict=True):
            worst = float((ours - theirs).abs().max())
            if worst > TOLERANCE:
                raise Disagreement(f"{objects} objects, {name}: the {kind} map is off by {worst:.2g}")


def measure(objects: int, repeats: int, seed: int = 0) -> dict[str, list[float]]:
    """Milliseconds a call of every variant, ``repeats`` times each, in turns of :data:`TURN` seconds."""
    method, arguments = pgd(), scene(objects, seed)

    def seconds(variant: Callable[..., Maps], calls: int) -> float:
        start = time.perf_counter()
        for _ in range(calls):
            variant(method, *arguments)
        return (time.perf_counter() - start) / calls

    # the second call of each: the first warms up
    calls = {name: max(1, round(TURN / [seconds(v, 1), seconds(v, 1)][1])) for name, v in VARIANTS.items()}
    times: dict[str, list[float]] = {name: [] for name in VARIANTS}
    for _ in range(repeats):
        for name, variant in VARIANTS.items():
            times[name].append(1e3 * seconds(variant, calls[name]))
    return times


def main() -> None:
    args = command_parser("speed_maps", "tools").parse_args()
    torch.set_num_threads(args.threads)
    print(f"{'objects':>7}  {'variant':<10}  {'median ms':>9}  {'least ms':>8}  {'times faster':>12}")
    for objects in args.objects:
        compare(objects, args.seed)
        times = measure(objects, args.repeats, args.seed)
        slow = median(times["one by one"])
        for name, taken in times.items():
            middle = median(taken)
            print(f"{objects:>7}  {name:<10}  {middle:>9.2f}  {min(taken):>8.2f}  {slow / middle:>12.1f}")


if __name__ == "__main__":
    run_cli(main, Disagreement)
