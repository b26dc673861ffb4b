"""The trainings that are timed: the mini pair of one detector, its batches, and a student without all our switches."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from mmdet.registry import MODELS
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from torch import Tensor, nn

import pgd.plugin  # noqa: F401  registers with mmdet
from benchmark.cost import build, first_batches
from benchmark.experiment.config import DatasetInfo, detector_config, model_dict
from benchmark.experiment.quiet import quiet
from benchmark.experiment.settings import Job, Params, Run, parse
from benchmark.experiment.workspace import HERE
from pgd.checkpoint import CheckpointError, export, load_strict
from pgd.priors import ASKED
from tools.timed.extent import Extent
from tools.timed.turns import Work

DEPTHS = {"teacher": 34, "student": 18}
#: B3 of the released code's faults takes batches of five at most
SETTINGS = {"pgd_released": {"faults": ["B1", "B4", "B5"]}}


def begin() -> None:
    """What every process that measures does first: no noise of libraries, one thread, as trainings share the cores."""
    quiet()
    # runs are named by the second, and two are built within one
    warnings.filterwarnings("ignore", message=".*has been created, the method `get_instance`")
    MMLogger.get_current_instance().setLevel("ERROR")
    init_default_scope("mmdet")
    torch.set_num_threads(1)


def pair_of(detector: str, dataset: str, options: dict[str, Any]) -> Params:
    """The mini pair of a detector."""
    pair = {
        kind: {"config": f"benchmark/configs/mini/{detector}_r{depth}.py", "options": options}
        for kind, depth in DEPTHS.items()
    }
    runs = {"student": {"pair": detector}}
    return parse({"datasets": {dataset: {}}, "pairs": {detector: {"dataset": dataset, **pair}}, "runs": runs})


def listed(batch: dict) -> dict:
    """A batch as mmdet collates it: a list of images, which are normalised one after the other."""
    return {**batch, "inputs": list(batch["inputs"])}


def forget_priors(head: nn.Module) -> None:
    """Let a head make its anchors in every step again, as mmdet's own does (pgd/priors.py)."""
    for name in ASKED:
        vars(head.prior_generator).pop(name, None)


def first_loss(model: nn.Module, batch: dict) -> float:
    """The sum of a model's losses on a batch."""
    data = model.data_preprocessor(batch, True)
    total, _ = model.parse_losses(model.loss(data["inputs"], data["data_samples"]))
    return total.item()


def is_finite(model: nn.Module) -> bool:
    """Whether a model has come through its steps."""
    return all(bool(p.isfinite().all()) for p in model.parameters())


@dataclass(frozen=True)
class Bench:
    """One detector on one data set."""

    detector: str
    data: DatasetInfo
    extent: Extent

    @cached_property
    def params(self) -> Params:
        return pair_of(self.detector, self.data.name, dict(self.extent.options))

    @property
    def job(self) -> Job:
        """The training of the plain student."""
        return self.params.student("student")

    @cached_property
    def batches(self) -> list[dict]:
        """The training's first ones, not yet preprocessed."""
        return first_batches(self.job, self.data, self.extent.batches)

    @cached_property
    def runs(self) -> dict[str, Run]:
        """A run for every method that fits the detector, which teaches from its first step on; nothing is inherited,
        which takes no time in a step."""
        # imports all that evaluates, which a process that takes one step can do without
        from benchmark.training.combinations import combinations

        def teaching(run: Run) -> Run:
            own = SETTINGS.get(run.method, {}) | ({"warmup": 0} if "warmup" in run.settings else {})
            return replace(run, inherit="none", settings=run.settings | own)

        runs, _ = combinations(self.params)
        return {run.method: teaching(run) for run in runs.values()}

    def turning(self, step: Callable[[dict], None], batches: list[dict] | None = None) -> Work:
        """A step on one batch after the other."""
        taken = batches or self.batches
        return lambda turn: step(taken[turn % len(taken)])

    def training(self, run: Run | None = None, teacher: Path | None = None) -> tuple[Work, nn.Module]:
        """A step of a training as the stage `distill` has it, but for its hooks, and its model."""
        job = self.job if run is None else replace(self.job, run=run)
        model, step = build(job, self.data, teacher)
        return self.turning(step), model

    def optimizer(self, **changes: Any) -> dict[str, Any]:
        """The student's optimiser as mmdet would have it, one parameter after the other, with changes."""
        own = dict(detector_config(self.job.detector).optim_wrapper.optimizer)
        own.pop("fused", None)
        return own | changes

    def student(
        self, channels_last: bool = False, priors: bool = False, stacked: bool = False, **optimizer: Any
    ) -> tuple[Work, nn.Module]:
        """The plain student's step with these switches on and all others as mmdet comes, and its model.

        Without any it is the literal baseline: weights and features with channels outermost, float32, an optimiser
        that takes one parameter after the other, anchors made in every step, images normalised one by one.

        Args:
            channels_last: channels innermost.
            priors: anchors are made once.
            stacked: images of a batch are normalised at once.
            optimizer: arguments of its own, as ``fused=True``.
        """
        options = {"optim_wrapper.optimizer": self.optimizer(**optimizer)}
        model, step = build(replace(self.job, run=replace(self.job.run, options=options)), self.data, None)
        if not channels_last:
            model.memory_format = torch.contiguous_format
            model.student.to(memory_format=model.memory_format)
        if not priors:
            forget_priors(model.student.bbox_head)
        return self.turning(step, self.batches if stacked else [listed(b) for b in self.batches]), model

    def teacher(self, folder: Path) -> tuple[Path, str]:
        """Weights of the teacher, and whether they were ``trained`` (work/teachers) or are ``random``.

        How long some methods take depends on what the teacher finds, so a trained one is taken where there is one.
        """
        model = MODELS.build(model_dict(detector_config(self.job.pair.teacher), len(self.data.classes)))
        kind, trained, path = "trained", HERE.teacher(self.detector) / "weights.pth", folder / f"{self.detector}.pth"
        try:
            load_strict(model, str(trained), "teacher")
        except CheckpointError:
            kind = "random"
            model.init_weights()
        export(model, path)
        return path, kind

    def as_text(self) -> str:
        """For another process."""
        return json.dumps({"detector": self.detector, "data": asdict(self.data), "extent": asdict(self.extent)})

    @classmethod
    def of_text(cls, text: str) -> Bench:
        """What :meth:`as_text` wrote."""
        own = json.loads(text)
        return cls(own["detector"], DatasetInfo(**own["data"]), Extent(**own["extent"]))


def first_step(text: str) -> None:
    """All that a training does until its first step is done; ``text`` is a :class:`Bench`."""
    begin()
    bench = Bench.of_text(text)
    bench = replace(bench, extent=replace(bench.extent, batches=1))
    work, _ = bench.training()
    work(0)


def channels_last(images: Tensor) -> Tensor:
    """Images ``[N, 3, H, W]`` with channels innermost."""
    return images.contiguous(memory_format=torch.channels_last)
