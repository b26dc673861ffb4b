"""Time what trainings on two CPU cores are made of, each beside what mmdet does by default.

``python -m tools.speed`` (in the repository, after ``dvc repro prepare@minicoco``) measures variants in turns, so that
their ratios are fair whatever else the machine does, and writes ``results/speed.json``, after each part as far as it
has come, ``results/speed.png`` and, of the targets, ``results/speed.md``. Ten minutes on two idle cores; ``--quick``
takes one or two and three turns, of GFL alone. All by one thread, as trainings share the cores, but where threads are
what is asked. Milliseconds and ratios, median and quartiles over the turns, of

- ``steps``, by detector: a training step of the student as mmdet has it (``literal``: channels outermost, an optimiser
  that takes one parameter after the other, anchors made anew, images normalised one by one) and as it is here; the
  teacher's forward pass; PGD's maps; a step of every method with a live teacher (``live``: by the student's step and
  the teacher's pass together) and with a stored one (``stored / student``: by the student's step),
- ``switches``: each switch of the student's step alone, by the literal step; one thread against two,
- ``compiled``: torch.compile of backbone and neck, or why there is none,
- ``side by side``: two trainings of one thread each against one after the other by two threads, and against two
  literal ones so,
- ``growth``: PGD's maps and step and the student's, time and memory, against boxes an image, images a batch, side of
  the image and levels, with the exponent of what grows,
- ``loader``: a batch of the student, by mmdet's way and as it is here, and its share of the student's step,
- ``evaluation``: COCO's figures of many detections by pycocotools and as it is here,
- ``deformable``: a deformable convolution of DDOD's mini head, there and back, by torchvision and as it is here,
- ``start``: of a training until its first step is done, and of ``--help``,
- ``targets``: what a suite that is fast would have, what was measured, and whether that is met; printed
"""

from __future__ import annotations

if __name__ == "__main__":
    # help and usage errors come before the imports that take seconds
    from benchmark.experiment.cli import answer_early

    answer_early("speed", "tools")

import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmark.experiment.cli import command_parser, run_cli
from benchmark.experiment.config import DatasetInfo
from benchmark.experiment.settings import SettingsError
from tools.timed.bench import Bench, begin
from tools.timed.compiled import compiled
from tools.timed.extent import FULL, QUICK, Extent
from tools.timed.figure import draw
from tools.timed.growth import growth
from tools.timed.loading import loading
from tools.timed.machine import load, measured_on, not_idle
from tools.timed.parts import deformable, evaluation, start
from tools.timed.side import side_by_side
from tools.timed.steps import steps
from tools.timed.switches import switches
from tools.timed.targets import markdown, printed, targets


def all_steps(benches: list[Bench]) -> dict[str, Any]:
    """Of every detector; of the first one all methods where that is asked for."""
    with tempfile.TemporaryDirectory() as folder:
        return {
            bench.detector: steps(bench, Path(folder), bench.extent.others and bench is benches[0]) for bench in benches
        }


def measure(data: DatasetInfo, extent: Extent, keep: Callable[[dict], None] = lambda content: None) -> dict[str, Any]:
    """Everything.

    Args:
        data: with the classes and images of minicoco.
        extent: how much.
        keep: gets what is known after each part.
    """
    begin()
    began = time.monotonic()
    content: dict[str, Any] = {"machine": measured_on(), "turns": extent.turns, "complete": False}
    benches = [Bench(detector, data, extent) for detector in extent.detectors]
    first = benches[0]
    parts: dict[str, Callable[[], Any]] = {
        "steps": lambda: all_steps(benches),
        "switches": lambda: switches(first),
        "compiled": lambda: compiled(first),
        "side by side": lambda: side_by_side(first),
        "growth": lambda: growth(extent),
        "loader": lambda: loading(first),
        "evaluation": lambda: evaluation(data, extent),
        "deformable": lambda: deformable(extent),
        "start": lambda: start(first),
        "targets": lambda: targets(content),
    }
    seconds: dict[str, float] = {}
    for name, part in parts.items():
        start_of_part = time.monotonic()
        content[name] = part()
        seconds[name] = round(time.monotonic() - start_of_part, 1)
        content["seconds"] = {**seconds, "all": round(time.monotonic() - began, 1)}
        keep(content)
    content["machine"]["load_after"] = load()
    content["complete"] = True
    keep(content)
    return content


def main() -> None:
    args = command_parser("speed", "tools").parse_args()
    extent = QUICK if args.quick else replace(FULL, turns=args.turns)
    # what is committed is measured with all turns
    out = args.out or Path("work/speed" if args.quick else "results")
    out.mkdir(parents=True, exist_ok=True)

    def keep(content: dict[str, Any]) -> None:
        (out / "speed.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    # other processes may stand elsewhere
    content = measure(DatasetInfo.load("minicoco").placed(Path.cwd()), extent, keep)
    draw(content).savefig(out / "speed.png", dpi=110)
    (out / "speed.md").write_text(markdown(content), encoding="utf-8")
    print(printed(content["targets"]))
    if told := not_idle(content["machine"]):
        print(told, file=sys.stderr)


if __name__ == "__main__":
    run_cli(main, SettingsError)
