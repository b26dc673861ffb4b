"""The arguments of the tools, apart from them: nothing here imports torch or mmdet.

So help and usage errors are answered at once, as for the commands (:mod:`benchmark.experiment.arguments`).
"""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path

from benchmark.experiment.arguments import Command, number
from benchmark.experiment.workspace import ROOT

#: detectors that steps are timed on at the paper's size
DETECTORS = ("gfl", "atss", "fcos")


def _speed(parser: ArgumentParser) -> None:
    parser.add_argument("--quick", action="store_true", help="three turns, GFL alone, a minute or two")
    turns = number(2, 1000, int)
    parser.add_argument("--turns", type=turns, default=20, help="of the steps that matter most (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="folder of the results (results; with --quick work/speed)")


def _gpu_speed(parser: ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "gpu", help="folder of the figures")
    parser.add_argument("--minutes", type=float, default=5.0, help="no block is begun that would end later")
    parser.add_argument("--detectors", nargs="+", choices=DETECTORS, default=list(DETECTORS))
    parser.add_argument("--quick", action="store_true", help="mini detectors, on the CPU too")


def _speed_maps(parser: ArgumentParser) -> None:
    parser.add_argument("--objects", type=int, nargs="+", default=[7, 50, 200], help="boxes in the image")
    parser.add_argument("--repeats", type=int, default=9, help="timings of each variant")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="of torch")


def _speed_crowdhuman(parser: ArgumentParser) -> None:
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--detections", type=int, default=20_000, help="in all images together")
    parser.add_argument("--repeats", type=int, default=3, help="timings of each variant")
    parser.add_argument("--seed", type=int, default=0)


def _fuzz_metrics(parser: ArgumentParser) -> None:
    parser.add_argument("--scenes", type=int, default=1000, help="for each evaluator (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the draws (default: %(default)s)")


def _nanodet(parser: ArgumentParser) -> None:
    parser.add_argument("--root", type=Path, required=True, metavar="DIR", help="folder of the weights")
    parser.add_argument("--mirror", metavar="URL", help="the same files from another place than github.com")


#: by the name of the module below ``tools``
COMMANDS = {
    "speed": Command(_speed),
    "gpu_speed": Command(_gpu_speed),
    "speed_maps": Command(_speed_maps),
    "speed_crowdhuman": Command(_speed_crowdhuman),
    "fuzz_metrics": Command(_fuzz_metrics),
    "nanodet": Command(_nanodet),
}
