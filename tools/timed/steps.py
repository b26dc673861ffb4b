"""Training steps of one detector: the student's, and every method's with a live and with a stored teacher."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pgd.dense import View
from pgd.distiller import Distiller
from pgd.teacher_features import StoredFeatures, store
from tools.steps import step_of
from tools.timed.bench import Bench, channels_last, is_finite
from tools.timed.turns import Times, Work, in_turns, over, spreads

LITERAL, STUDENT, TEACHER, MAPS = "student, literal", "student", "teacher", "PGD's maps"
TEACHER_LITERAL = "teacher, literal"


def stored_name(method: str) -> str:
    """The variant of a method whose teacher's features are read."""
    return f"{method}, stored"


def store_of(ready: Sequence[dict], teacher: nn.Module, folder: Path) -> tuple[StoredFeatures, bool]:
    """The teacher's features of these preprocessed batches, stored as the stage `distill` does, and whether they are
    read back bit for bit."""
    store(folder, ((batch["inputs"], batch["data_samples"]) for batch in ready), teacher.extract_feat)
    features = StoredFeatures(folder)
    equal = True
    for batch in ready:
        with torch.no_grad():
            live = teacher.extract_feat(batch["inputs"])
        read = features(batch["data_samples"], batch["inputs"].device)
        equal &= all(torch.equal(a, b) for a, b in zip(live, read, strict=True))
    return features, equal


def with_store(model: Distiller, work: Work, features: StoredFeatures) -> Work:
    """The same step of the same model, which reads its teacher's features."""

    def run(turn: int) -> None:
        model._stored = features
        try:
            work(turn)
        finally:
            model._stored = None

    return run


def passing(teacher: nn.Module, images: Sequence[torch.Tensor]) -> Work:
    """The teacher's forward pass on one batch of images after the other."""

    @torch.no_grad()
    def run(turn: int) -> None:
        teacher.bbox_head(teacher.extract_feat(images[turn % len(images)]))

    return run


def mapping(model: Distiller, ready: Sequence[dict]) -> Work:
    """PGD's weight maps alone, decoding of the teacher's boxes and scores included."""
    with torch.no_grad():
        steps = [step_of(model, batch["inputs"], batch["data_samples"]) for batch in ready]

    def run(turn: int) -> None:
        step = steps[turn % len(steps)]
        # a new view has decoded nothing yet
        step.teacher = View(step.teacher.reader, step.grid, outputs=step.teacher.outputs)
        model.method.masks(step)

    return run


def methods_of(
    bench: Bench, methods: Sequence[str], teacher: Path, features: StoredFeatures | None = None
) -> tuple[dict[str, Work], dict[str, Distiller]]:
    """Steps of methods with a live teacher, and their models; with ``features`` their steps with a stored one too."""
    variants: dict[str, Work] = {}
    models: dict[str, Distiller] = {}
    for method in methods:
        variants[method], models[method] = bench.training(bench.runs[method], teacher)
        if features is not None:
            variants[stored_name(method)] = with_store(models[method], variants[method], features)
    return variants, models


def ratios(times: Times, methods: Sequence[str]) -> dict[str, dict[str, dict[str, float]]]:
    """What a step of every method costs, by what it is made of.

    Returns:
        ``live``: by the student's step and the teacher's pass together; ``live / student`` and ``stored / student``: by
        the student's step alone.
    """
    student = times[STUDENT]
    return {
        "live": {m: over(times[m], student, times[TEACHER]) for m in methods},
        "live / student": {m: over(times[m], student) for m in methods},
        "stored / student": {m: over(times[stored_name(m)], student) for m in methods},
    }


def steps(bench: Bench, folder: Path, others: bool) -> dict[str, Any]:
    """Times of everything that a training of this detector can consist of.

    Args:
        bench: the detector.
        folder: to write to.
        others: whether also of the methods that no target is set for, in fewer turns.
    """
    extent, name = bench.extent, bench.detector
    teacher, kind = bench.teacher(folder)
    variants: dict[str, Work] = {}
    models: dict[str, Distiller] = {}
    variants[LITERAL], models[LITERAL] = bench.student()
    variants[STUDENT], models[STUDENT] = bench.training()
    _, guided = bench.training(bench.runs["pgd"], teacher)
    ready = [guided.data_preprocessor(batch, True) for batch in bench.batches]
    outermost = [batch["inputs"].contiguous() for batch in ready]
    ready = [batch | {"inputs": channels_last(batch["inputs"])} for batch in ready]
    features, equal = store_of(ready, guided.teacher, folder / f"{name}-features")
    _, literal = bench.training(bench.runs["pgd"], teacher)
    literal.teacher.to(memory_format=torch.contiguous_format)
    variants[TEACHER] = passing(guided.teacher, [batch["inputs"] for batch in ready])
    variants[TEACHER_LITERAL] = passing(literal.teacher, outermost)
    variants[MAPS] = mapping(guided, ready)
    core = [method for method in extent.methods if method in bench.runs]
    own, trained = methods_of(bench, core, teacher, features)
    times = in_turns(variants | own, extent.turns, name, extent.warm_up)
    found: dict[str, Any] = {
        "teacher": kind,
        "stored features equal the live ones": equal,
        "ms": spreads(times),
        "student, literal / student": over(times[LITERAL], times[STUDENT]),
        "teacher, literal / teacher": over(times[TEACHER_LITERAL], times[TEACHER]),
        "PGD's maps / student": over(times[MAPS], times[STUDENT]),
        **ratios(times, core),
    }
    models |= trained
    if others and (rest := [method for method in bench.runs if method not in core]):
        own, trained = methods_of(bench, rest, teacher, features)
        plain = {key: variants[key] for key in (STUDENT, TEACHER)}
        times = in_turns(plain | own, extent.share(0.3), f"{name}, others", extent.warm_up)
        found["ms"] |= spreads({key: times[key] for key in own})
        for kind_of, more in ratios(times, rest).items():
            found[kind_of] |= more
        models |= trained
    found["not finite"] = [key for key, model in models.items() if not is_finite(model)]
    found["place"] = {key: model.method.place for key, model in models.items() if model.method is not None}
    return found
