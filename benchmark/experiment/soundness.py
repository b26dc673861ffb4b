"""Are all settings of an experiment sound? Its detectors and methods are built, without data and training."""

from __future__ import annotations

import torch
from torch import nn

import pgd.plugin  # noqa: F401  registers with mmdet
from benchmark.experiment.config import detector_config, model_dict
from benchmark.experiment.contexts import untrained, untrained_context
from benchmark.experiment.names import hint, unknown, wrong_kind
from benchmark.experiment.settings import Detector, Job, Params, SettingsError
from benchmark.experiment.watching import check_watch
from benchmark.match import TOKENS
from pgd.dense import UnsupportedHead
from pgd.methods.base import METHODS, MethodContext, MethodError, build_method, settings_of

#: any number does, as a data set gives both detectors the same
CLASSES = 80
#: channels that oneDNN takes at once on processors with AVX-512
LANES = 16


def overrun(model: nn.Module) -> list[str]:
    """Convolutions whose backward step writes past its memory where channels lie innermost, and crashes or gives wrong
    gradients: strided, 1x1, of fewer input channels than the processor takes at once (8 with AVX2; on every machine
    those of AVX-512 are told, so that an experiment that is sound on one is so on all).

    Source: https://github.com/uxlfoundation/oneDNN/issues/6035, seen with the oneDNN 3.12 of torch 2.14.
    """
    return [
        name
        for name, part in model.named_modules()
        if isinstance(part, nn.Conv2d)
        and part.kernel_size == (1, 1)
        and max(part.stride) > 1
        and part.in_channels // part.groups < LANES
    ]


def check_detector(detector: Detector, options: dict | None = None) -> None:
    """Find a misspelt config key, and what a training would crash on; raises :class:`SettingsError`."""
    cfg = detector_config(detector, options)
    if not cfg.get("channels_last", True):
        return
    with torch.device("meta"):
        convolutions = overrun(untrained(model_dict(cfg, CLASSES)))
    if convolutions:
        raise SettingsError(
            f"{detector.config}: {convolutions[0]} is a strided 1x1 convolution of fewer than {LANES} channels, on "
            "which oneDNN crashes with channels innermost (its issue 6035): put `channels_last = False` into the config"
        )


def context(job: Job) -> MethodContext:
    """What a method will know of its two detectors."""
    configs = detector_config(job.detector, job.options), detector_config(job.pair.teacher)
    return untrained_context(*(model_dict(cfg, CLASSES) for cfg in configs))


def check_run(name: str, params: Params, contexts: dict[str, MethodContext] | None = None) -> None:
    """Find every misspelt method, setting or config key, and what a method would refuse once its teacher is there.

    ``contexts`` keeps what runs share, as detectors take their time.
    """
    job = params.student(name)
    run = job.run
    try:
        if run.method != "none":
            if run.method not in METHODS.module_dict:
                raise MethodError(unknown("distillation method", run.method, sorted(METHODS.module_dict)))
            known = settings_of(run.method)
            for key, value in run.settings.items():
                if key not in known:
                    raise MethodError(f"settings.{key}: unknown to method '{run.method}'; {hint(key, known)}")
                if wrong := wrong_kind(value, known[key]):
                    raise MethodError(f"settings.{key}: {wrong}")
                if key == TOKENS:
                    raise MethodError(f"settings.{key}: filled in, the stage `match` learns them; delete the key")
        if run.options or job.detector != job.pair.student:
            # what a run has otherwise than its pair, which is checked once
            check_detector(job.detector, run.options)
        if run.method != "none":
            contexts, key = {} if contexts is None else contexts, f"{run.pair} {run.options}"
            contexts[key] = contexts.get(key) or context(job)
            build_method(run.method, contexts[key], **run.settings)
    except (ValueError, SettingsError, UnsupportedHead) as error:
        raise SettingsError(f"runs.{name}: {error}") from None


def check_models(params: Params) -> None:
    """Check all detectors and runs, and what watches them; raises :class:`SettingsError`."""
    check_watch(params)
    for name, pair in params.pairs.items():
        for role in ("teacher", "student"):
            try:
                check_detector(getattr(pair, role))
            except SettingsError as error:
                raise SettingsError(f"pairs.{name}.{role}: {error}") from None
    contexts: dict[str, MethodContext] = {}
    for name in params.runs:
        check_run(name, params, contexts)
