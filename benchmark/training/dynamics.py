"""How a student comes nearer to its teacher in training: distances of features by region, and where gradients fall.

A hook of the stage `distill`. Regions by the teacher's predictions on fixed training images: *key* positions (those to
which PGD gives weight for classification), the rest of the *box* insides, and the *background*.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from mmengine.dataset import pseudo_collate
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from torch import Tensor

from benchmark.training.draws import DrawnCoco
from benchmark.training.hooks import Record, distiller
from benchmark.training.result import FEATURES, REGIONS
from pgd.dense import Grid, reader_of
from pgd.distiller import Distiller
from pgd.maths.regions import Objects, Predictions, inside, prediction_guided_weights
from pgd.tape import Tape


def first_images(dataset: DrawnCoco, count: int) -> dict:
    """The first ``count`` images of a training set as a batch, always augmented alike."""
    return pseudo_collate([dataset.augmented(i, i) for i in range(min(count, len(dataset)))])


def regions(grid: Grid, scores: Tensor, boxes: Tensor, objects: Sequence[Objects], topk: int) -> Tensor:
    """The region of every position, as indices of :data:`REGIONS` ``[N, P]``.

    Args:
        grid: the positions.
        scores: the teacher's, ``[N, P A, C]``.
        boxes: likewise, ``[N, P A, 4]``.
        objects: of each image.
        topk: K, positions an object.
    """
    found = torch.full((len(objects), len(grid.centers)), REGIONS.index("background"))
    for region, own, *predicted in zip(found, objects, scores, boxes, strict=True):
        predictions = Predictions(*predicted, grid.prediction_centers)
        weights = prediction_guided_weights(predictions, own, xi=0.8, topk=topk)
        region[inside(grid.centers, own.boxes).any(dim=1)] = REGIONS.index("box")
        region[grid.to_positions(weights) > 0] = REGIONS.index("key")
    return found


def relative_distances(student: Sequence[Tensor], teacher: Sequence[Tensor], region: Tensor) -> dict[str, float]:
    """Mean over a region's positions of ``sum_c (F^S - F^T)^2 / mean_p sum_c (F^T)^2``, each level by its own mean.

    Args:
        student: ``[N, C, H, W]`` a level.
        teacher: the same.
        region: ``[N, P]`` indices of :data:`REGIONS`; others are left out.

    Returns:
        One figure a region; NaN where no position belongs to it. 0: equal. Zero features would have 1 over all regions
        together, and more where the teacher's features are stronger than on average, as on key positions.
    """
    parts = []
    for own, theirs in zip(student, teacher, strict=True):
        scale = (theirs**2).sum(dim=1).mean().clamp(min=1e-12)
        parts.append((((own - theirs) ** 2).sum(dim=1) / scale).flatten(1))
    return means(torch.cat(parts, dim=1), region)


def means(values: Tensor, region: Tensor) -> dict[str, float]:
    """Mean of ``values [N, P]`` over each region."""
    return {name: float(values[region == i].mean()) for i, name in enumerate(REGIONS)}


def shares(gradients: Sequence[Tensor], region: Tensor) -> dict[str, float]:
    """Share of the gradient's absolute mass (over channels) that falls on each region; features ``[N, C, H, W]``."""
    mass = torch.cat([g.abs().sum(dim=1).flatten(1) for g in gradients], dim=1)
    total = mass.sum().clamp(min=1e-30)
    return {name: float(mass[region == i].sum() / total) for i, name in enumerate(REGIONS)}


@HOOKS.register_module()
class Dynamics(Hook):
    """Adds entries ``distance.<features>.<region>`` and ``gradient.<region>`` to the training's curve.

    Gradients are those of the method's own terms by the student's neck features. Nothing of the training changes: the
    hook takes no random number from it and puts back what a loss counts.

    Args:
        topk: K, how many positions an object has in its key region.
        points: how often, besides the start.
        images: the first images of the training set, always the same; a batch of the training at most.
    """

    def __init__(self, topk: int, points: int = 8, images: int = 8) -> None:
        self.topk, self.points, self.images = topk, points, images

    def before_train(self, runner) -> None:
        # no more than the training's batches have: some methods take no more (pgd_released on GFL)
        count = min(self.images, runner.cfg.train_dataloader.batch_size)
        self.batch = first_images(runner.train_dataloader.dataset, count)
        self.tapes = Tape(distiller(runner).student), Tape(distiller(runner).teacher)
        self.interval = max(1, runner.max_iters // self.points)
        self.record = next(hook for hook in runner.hooks if isinstance(hook, Record))
        if runner.iter == 0:
            self.look(distiller(runner), 0)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        step = runner.iter + 1
        if step % self.interval == 0 or step == runner.max_iters:
            self.look(distiller(runner), step)

    def look(self, model: Distiller, step: int) -> None:
        """Measure now."""
        data = model.data_preprocessor(self.batch, True)
        inputs, samples = data["inputs"], data["data_samples"]
        student, teacher = self.tapes
        model.student.eval()
        with torch.no_grad():
            for tape, detector in ((student, model.student), (teacher, model.teacher)):
                with tape.recording():
                    detector.bbox_head(detector.extract_feat(inputs))
        model.student.train()
        metas = [sample.metainfo for sample in samples]
        grid = teacher.reader.grid([f.shape[-2:] for f in teacher.neck], metas, inputs.device)
        own, theirs = (tape.view(grid, {"neck", "towers", "predictions"}) for tape in self.tapes)
        objects = [Objects(sample.gt_instances.bboxes, sample.gt_instances.labels) for sample in samples]
        region = regions(grid, theirs.scores, theirs.boxes, objects, self.topk)
        region = region.masked_fill(~grid.valid.cpu(), -1).to(inputs.device)
        entry = {}
        for name in FEATURES:
            features = getattr(own, name), getattr(theirs, name)
            if features[0][0].shape == features[1][0].shape:
                entry |= {f"distance.{name}.{k}": v for k, v in relative_distances(*features, region).items()}
        if model.method is not None:
            entry |= {f"gradient.{k}": v for k, v in shares(self.gradients(model, inputs, samples), region).items()}
        for tape in self.tapes:
            tape.clear()
        self.record.append({"step": step, **{k: round(v, 6) for k, v in entry.items() if v == v}})

    def gradients(self, model: Distiller, inputs: Tensor, samples: list) -> list[Tensor]:
        """Gradients of the method's terms by the student's neck features, level by level."""
        kept: list[Tensor] = []
        terms: dict[str, Tensor] = {}
        handles = (
            model.student.neck.register_forward_hook(lambda m, i, out: kept.extend(out)),
            model.method.register_forward_hook(lambda m, i, out: terms.update(out)),
        )
        head, counted = model.student.bbox_head, reader_of(model.student.bbox_head).memory
        memory = {name: copy.deepcopy(getattr(head, name)) for name in counted}
        buffers = {name: value.clone() for name, value in model.method.named_buffers()}
        try:
            with torch.random.fork_rng():
                torch.manual_seed(0)
                model.loss(inputs, samples)
            found = torch.autograd.grad(sum(terms.values()), kept, allow_unused=True)
        finally:
            for handle in handles:
                handle.remove()
            for name, value in memory.items():
                setattr(head, name, value)
            for name, value in buffers.items():
                model.method.get_buffer(name).copy_(value)
        return [torch.zeros_like(f) if g is None else g for f, g in zip(kept, found, strict=True)]
