"""Time training steps at the paper's size on a GPU: the student alone, the teacher alone, PGD and two rivals.

``python -m tools.gpu_speed --out results/gpu --minutes 5`` trains R50 students under R101 teachers (the configs of
benchmark/configs/paper) on random images of 1333 x 800 with seven random boxes each, from random weights, for batches
of 2 and 8 in float32, in TF32 and under float16 autocast with a gradient scaler. The variants take turns, so that their
ratios are fair. A turn is some steps in a row between two CUDA events; weights, images and boxes are already on the
device. What is done is written after every block of one detector, batch and precision to ``<out>/<card>.json``:

- ``ms``: milliseconds, median, quartiles and least over the turns, of ``student`` (forward, backward, optimiser),
  ``teacher`` (forward), ``pgd``, ``fgd``, ``crosskd`` (steps with a live teacher) and ``pgd_maps`` (PGD's weight maps
  alone, decoding the teacher's boxes included),
- ``ratio``: of a method's step to student step plus teacher forward,
- ``peak_mib``: most memory that a step holds, with the weights and the optimiser's state that it needs itself.

``--quick`` times mini detectors in seconds, on the CPU too.
"""

from __future__ import annotations

if __name__ == "__main__":
    # help and usage errors come before the imports that take seconds
    from benchmark.experiment.cli import answer_early

    answer_early("gpu_speed", "tools")

import json
import os
import platform
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from torch import Tensor, nn

from benchmark.experiment.cli import command_parser, run_cli
from benchmark.experiment.quiet import quiet
from pgd.dense import DistillStep, View
from tools.arguments import DETECTORS
from tools.steps import OBJECTS, PAPER, QUICK, Scale, Subject, batch_of, spread, step_of

METHODS = ("pgd", "fgd", "crosskd")
PRECISIONS = ("fp32", "tf32", "amp")
MIB = 2**20


class Clock:
    """Times on a device, and what memory it holds."""

    def __init__(self, device: str) -> None:
        self.device, self.cuda = device, device == "cuda"

    def wait(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()

    def tidy(self) -> None:
        """Give back what the allocator keeps."""
        if self.cuda:
            torch.cuda.empty_cache()

    def milliseconds(self, work: Callable[[], object], times: int) -> float:
        """Of one of ``times`` calls in a row."""
        self.wait()
        if not self.cuda:
            start = time.perf_counter()
            for _ in range(times):
                work()
            return 1e3 * (time.perf_counter() - start) / times
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(times):
            work()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / times

    def peak(self, work: Callable[[], object]) -> int | None:
        """Bytes that a call holds beyond what was there before."""
        if not self.cuda:
            return None
        self.wait()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        self.wait()
        return torch.cuda.max_memory_allocated() - before


class Precision:
    """A kind of arithmetic, as a training has it."""

    def __init__(self, name: str, device: str) -> None:
        self.name, self.device = name, device
        # mmengine's AmpOptimWrapper: float16 and a scaler; the CPU has bfloat16 only
        self.scaler = torch.amp.GradScaler(device, init_scale=64.0, enabled=name == "amp" and device == "cuda")

    @contextmanager
    def on(self) -> Iterator[None]:
        backends = torch.backends
        before = backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32
        # under autocast, what stays float32 is computed as by default
        backends.cuda.matmul.allow_tf32 = self.name == "tf32"
        backends.cudnn.allow_tf32 = self.name != "fp32"
        try:
            yield
        finally:
            backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32 = before

    def cast(self) -> torch.autocast:
        dtype = torch.float16 if self.device == "cuda" else torch.bfloat16
        return torch.autocast(self.device, dtype, enabled=self.name == "amp")


class Turns:
    """The variants of one block and their times."""

    def __init__(self, subjects: dict[str, Subject], precision: Precision, batch: tuple) -> None:
        self.subjects, self.precision, self.batch = subjects, precision, batch
        self.last: dict[str, Tensor] = {}
        self.step: DistillStep | None = None
        self.variants: dict[str, Callable[[], object]] = {
            "student": lambda: self.train("student", subjects["pgd"], subjects["pgd"].model.student),
            "teacher": self.teach,
            **{name: lambda n=name: self.train(n, subjects[n], subjects[n].model) for name in METHODS},
            "pgd_maps": self.maps,
        }

    def train(self, name: str, subject: Subject, model: nn.Module) -> None:
        """Forward, backward, optimiser."""
        with self.precision.cast():
            losses = model.loss(*self.batch)
        total, _ = subject.model.parse_losses(losses)
        subject.optimizer.zero_grad()
        self.precision.scaler.scale(total).backward()
        self.precision.scaler.step(subject.optimizer)
        self.precision.scaler.update()
        self.last[name] = total.detach()

    @torch.no_grad()
    def teach(self) -> None:
        teacher = self.subjects["pgd"].model.teacher
        with self.precision.cast():
            teacher.bbox_head(teacher.extract_feat(self.batch[0]))

    def maps(self) -> None:
        """As in a step, of which the teacher's outputs are kept."""
        model = self.subjects["pgd"].model
        if self.step is None:
            with torch.no_grad(), self.precision.cast():
                self.step = step_of(model, *self.batch)
            self.step.student = None
        view = self.step.teacher
        # a new view has decoded nothing yet
        self.step.teacher = View(view.reader, view.grid, outputs=view.outputs)
        with self.precision.cast():
            model.method.masks(self.step)

    def release(self) -> None:
        """Free the gradients."""
        for subject in self.subjects.values():
            subject.optimizer.zero_grad()


def block(turns: Turns, scale: Scale, clock: Clock, until: float) -> dict:
    """Warm up, measure memory, then take turns until ``until`` (a time of :func:`time.monotonic`)."""
    failed: dict[str, str] = {}
    peaks: dict[str, float | None] = {}
    variants = dict(turns.variants)
    for name, work in turns.variants.items():
        try:
            for _ in range(scale.warm_up):
                work()
            turns.release()
            peak = clock.peak(work)
        except Exception as error:  # out of memory, or a type that an operator does not serve: the others go on
            failed[name] = (str(error) or repr(error)).splitlines()[0]
            del variants[name]
        turns.release()
        if name in failed:
            clock.tidy()
            continue
        subject = turns.subjects[name if name in METHODS else "pgd"]
        if name in ("student", *METHODS):
            peaks[name] = None if peak is None else round((peak + subject.held(name != "student")) / MIB, 1)
    times: dict[str, list[float]] = {name: [] for name in variants}
    taken = 0
    while taken < scale.least or (taken < scale.most and time.monotonic() < until):
        for name, work in variants.items():
            times[name].append(clock.milliseconds(work, scale.steps))
            turns.release()
        taken += 1
    ratios = {}
    if {"student", "teacher"} <= times.keys():
        plain = [s + t for s, t in zip(times["student"], times["teacher"], strict=True)]
        ratios = {
            name: spread([own / base for own, base in zip(times[name], plain, strict=True)])
            for name in METHODS
            if name in times
        }
    finite = {name: bool(value.isfinite()) for name, value in turns.last.items() if name in variants}
    return {
        "ms": {name: spread(values) for name, values in times.items()},
        "ratio": ratios,
        "peak_mib": peaks,
        "finite": finite,
        **({"failed": failed} if failed else {}),
    }


def card_of(device: str) -> dict:
    """What the figures depend on."""
    name, driver = platform.processor() or platform.machine(), None
    if device == "cuda":
        name = torch.cuda.get_device_name()
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        try:
            driver = subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()[0].strip()
        except (OSError, subprocess.CalledProcessError, IndexError):
            driver = None
    versions = {"torch": torch.__version__, "cuda": torch.version.cuda, "python": platform.python_version()}
    cudnn = torch.backends.cudnn.version() if device == "cuda" else None
    return {"card": name, "driver": driver, **versions, "cudnn": cudnn}


def slug(name: str) -> str:
    """A card's name as the name of a file."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def write(path: Path, content: dict) -> None:
    """All or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".part")
    beside.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    os.replace(beside, path)


def measure(scale: Scale, device: str, minutes: float, out: Path, detectors: tuple[str, ...] = DETECTORS) -> Path:
    """Time block after block within ``minutes``; returns the file that holds what was done."""
    clock, start = Clock(device), time.monotonic()
    end = start + 60 * minutes
    content = card_of(device) | {
        "image": list(scale.image),
        "padded": list(scale.padded),
        "objects": OBJECTS,
        "steps_a_turn": scale.steps,
        "complete": False,
        "blocks": [],
    }
    path = out / f"{slug(content['card'])}{'' if scale is PAPER else '-quick'}.json"
    # what would be missed most comes first; the longest blocks come last
    wanted = [(d, n, p) for n in scale.batches for p in PRECISIONS for d in detectors]
    wanted.sort(key=lambda one: one[2] == "fp32" and one[1] > 2)
    subjects: dict[str, dict[str, Subject]] = {}
    slowest = 0.0
    for i, (detector, count, name) in enumerate(wanted):
        began = time.monotonic()
        # a block is not begun that would end late, by the longest so far
        if i and began + slowest > end:
            break
        if detector not in subjects:
            subjects[detector] = {method: Subject(method, detector, scale, device) for method in METHODS}
        precision = Precision(name, device)
        with precision.on():
            turns = Turns(subjects[detector], precision, batch_of(count, scale, device))
            figures = block(turns, scale, clock, time.monotonic() + (end - time.monotonic()) / (len(wanted) - i))
        content["blocks"].append({"detector": detector, "batch": count, "precision": name, **figures})
        content["seconds"] = round(time.monotonic() - start, 1)
        content["complete"] = i + 1 == len(wanted)
        write(path, content)
        ratios = ", ".join(f"{method} {r['median']:.3f}" for method, r in figures["ratio"].items())
        failed = "".join(f"; {variant} failed: {why}" for variant, why in figures.get("failed", {}).items())
        print(f"{content['seconds']:6.1f} s  {detector} batch {count} {name}: {ratios}{failed}", flush=True)
        slowest = max(slowest, time.monotonic() - began)
        del turns
        clock.tidy()
    return path


def main() -> None:
    args = command_parser("gpu_speed", "tools").parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not args.quick:
        print("no CUDA device, so nothing is timed; --quick times mini detectors on the CPU")
        return
    quiet()
    MMLogger.get_current_instance().setLevel("ERROR")
    init_default_scope("mmdet")
    print(measure(QUICK if args.quick else PAPER, device, args.minutes, args.out, tuple(args.detectors)))


if __name__ == "__main__":
    run_cli(main)
