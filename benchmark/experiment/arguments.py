"""The arguments of every command, apart from the commands: nothing here imports torch or mmdet.

So help and usage errors are answered at once. One function a command adds its arguments; a check, where there is one,
says what is wrong with their combination. Those of commands on data sets: :mod:`benchmark.data.arguments`.
"""

from __future__ import annotations

import argparse
import math
import os
import re
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from benchmark.data import arguments as data
from benchmark.experiment.names import unknown
from benchmark.experiment.workspace import HERE, ROOT
from benchmark.probe.options import EXAMPLE, FILES, MODES, ORDERS, PERCENTS


class Command(NamedTuple):
    """How a command is called."""

    add: Callable[[ArgumentParser], None]
    #: a complaint about arguments that do not go together, or None
    check: Callable[[Namespace], str | None] = lambda args: None


def number(low: float, high: float, kind: type = float) -> Callable[[str], float]:
    """A reader of numbers from ``low`` to ``high``."""

    def read(text: str) -> float:
        if not low <= (value := kind(text)) <= high:
            raise argparse.ArgumentTypeError(f"{text} is not from {low:g} to {high:g}")
        return value

    read.__name__ = "whole number" if kind is int else "number"
    return read


def _params(parser: ArgumentParser) -> None:
    parser.add_argument("--params", default="params.yaml")


def _check(parser: ArgumentParser) -> None:
    _params(parser)
    parser.add_argument("--models", action="store_true", help="build all detectors and methods, as the stage `check`")


def _match(parser: ArgumentParser) -> None:
    _params(parser)
    parser.add_argument("runs", nargs="*", metavar="RUN", help="runs of params.yaml (default: all)")


def _nothing(parser: ArgumentParser) -> None:
    """The command takes no arguments."""


def _plan(parser: ArgumentParser) -> None:
    _params(parser)
    parser.add_argument("pair", nargs="?", metavar="PAIR", help="a pair of params.yaml (default: all)")
    several = number(1, math.inf, int)
    parser.add_argument("--dry-run", action="store_true", help="only say what the experiment would take")
    asked = parser.add_argument_group("with --dry-run")
    asked.add_argument("--gpus", type=several, nargs="+", default=[8], metavar="N", help="(default: 8)")
    asked.add_argument(
        "--throughput",
        type=number(1e-3, math.inf),
        default=30.0,
        metavar="IMG_PER_S",
        help="training images a second of the first pair's student without a teacher on one GPU (default: 30)",
    )
    asked.add_argument("--price", type=number(0, math.inf), metavar="PER_GPU_HOUR", help="in any currency")
    asked.add_argument("--out", type=Path, metavar="FILE.md", help="write the table there, too")


def _only_dry(args: Namespace) -> str | None:
    return "--out, --price: only with --dry-run" if (args.out or args.price) and not args.dry_run else None


def _train(parser: ArgumentParser) -> None:
    _params(parser)
    commands = parser.add_subparsers(dest="command", required=True)
    teacher = commands.add_parser("teacher", help="train the teacher of a pair")
    teacher.add_argument("pair")
    distill = commands.add_parser("distill", help="train the student of one run")
    distill.add_argument("run")
    distill.add_argument("--seed", type=int, default=0)


def _evaluate(parser: ArgumentParser) -> None:
    parser.add_argument("run", help="name of a run, or of a pair with --teacher")
    parser.add_argument("--teacher", action="store_true", help="evaluate the teacher of this pair")
    parser.add_argument("--seed", type=int, default=0)
    _params(parser)


def _prepare(parser: ArgumentParser) -> None:
    parser.add_argument("dataset", help="name of a data set in params.yaml")
    _params(parser)


def _cost(parser: ArgumentParser) -> None:
    parser.add_argument("--turns", type=int, default=12, help="training steps of each run (default: %(default)s)")
    _params(parser)


def _key_regions(parser: ArgumentParser) -> None:
    several, count = math.inf, number(1, math.inf, int)
    parser.add_argument("pair", nargs="?", metavar="PAIR", help="a pair of params.yaml: its trained teacher")
    parser.add_argument("--params", default="params.yaml", help="where the pair stands (default: %(default)s)")
    own = parser.add_argument_group("any mmdet detector instead of a pair's teacher")
    own.add_argument("--config", help=f"a config file, or the name of one that mmdet ships ({EXAMPLE})")
    own.add_argument("--checkpoint", type=Path, help="its weights")
    own.add_argument("--annotations", type=Path, help="COCO annotations")
    own.add_argument("--images", type=Path, help="folder of the images")
    own.add_argument(
        "--classes", choices=ORDERS, help="whose order of classes its outputs have, where checkpoint and file differ"
    )
    own.add_argument("--name", help="names the results (default: the config's name)")
    parser.add_argument("--limit", type=count, metavar="N", help="look at the first N images only")
    parser.add_argument("--batch-size", type=count, default=1, metavar="N", help="images in one pass (default: 1)")
    parser.add_argument(
        "--percents", type=number(1e-3, 100), nargs="+", default=PERCENTS, metavar="P", help="shares to keep"
    )
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES, help="(default: both)")
    parser.add_argument(
        "--xi", type=number(0, 1), default=0.8, help="exponent of the IoU in the quality (default: 0.8)"
    )
    parser.add_argument(
        "--draws", type=number(0, several, int), default=3, metavar="N", help="random ones (default: 3)"
    )
    parser.add_argument("--seed", type=number(0, several, int), default=0, help="of the first draw (default: 0)")
    out = HERE.results / "key_regions"
    parser.add_argument("--out", type=Path, default=out, help="folder of the results (default: %(default)s)")


def _one_subject(args: Namespace) -> str | None:
    files = [getattr(args, key) for key in FILES]
    if any(files) == bool(args.pair) or any(files) != all(files):
        return f"give either a PAIR or all of {', '.join(f'--{key}' for key in FILES)}"
    return None


def _region_figures(parser: ArgumentParser) -> None:
    results, out = HERE.results / "key_regions", HERE.results / "key_regions_figures"
    parser.add_argument("--results", type=Path, default=results, help="what was measured (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=out, help="where figures go (default: %(default)s)")


def _report(parser: ArgumentParser) -> None:
    parser.add_argument("--results", type=Path, default=HERE.results, help="records in, tables out")
    parser.add_argument("--work", type=Path, default=HERE.work, help="folder of data set and detections")
    parser.add_argument("--params", type=Path, default=HERE.params, help="names the runs and seeds")


def _summary(parser: ArgumentParser) -> None:
    parser.add_argument("--results", type=Path, default=HERE.results, help="folder of table.csv")


def _verdict(parser: ArgumentParser) -> None:
    parser.add_argument("--results", type=Path, default=HERE.results, help="folder of metrics.json")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--against", type=Path, metavar="FILE", help="instead of the committed metrics.json")
    source.add_argument("--from-diff", metavar="FILE", help="a dvc diff as JSON; - is stdin")
    source.add_argument(
        "--accept", action="store_true", help="write expected.json, the reference of the report's verdict, from now on"
    )
    parser.add_argument("--tolerance", type=float, help="AP (default: as in expected.json)")


def _claims(parser: ArgumentParser) -> None:
    parser.add_argument("--experiments", type=Path, default=Path("experiments"), help="claims.yaml and results")
    parser.add_argument("--out", type=Path, default=HERE.results, help="folder of claims.md and claims.csv")
    parser.add_argument(
        "--readme", type=Path, default=Path("README.md"), help="its block of what was found is rewritten"
    )


def _front(parser: ArgumentParser) -> None:
    parser.add_argument("--experiments", type=Path, default=Path("experiments"), help="titles.yaml and results")
    parser.add_argument(
        "--claims", type=Path, default=HERE.results / "claims.csv", help="the verdicts (default: %(default)s)"
    )
    parser.add_argument("--out", type=Path, default=HERE.results, help="folder of index.html (default: %(default)s)")


def _notebooks(parser: ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", help="notebooks to run (default: all)")
    parser.add_argument("--keep", action="store_true", help="write the outputs into the notebooks, too")


def _known_notebooks(args: Namespace) -> str | None:
    known = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))
    wrong = [name for name in args.names if name not in known]
    return unknown("notebook", wrong[0], known) if wrong else None


def _methods(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--out",
        type=Path,
        help="file to write (default: docs/methods.md, with docs/published.md)",
    )


def _tune(parser: ArgumentParser) -> None:
    parser.add_argument("methods", nargs="*", help="names of docs/methods.md")
    parser.add_argument("--trials", type=Path, metavar="FILE", help="runs to try instead of weights")
    parser.add_argument("--pair", default="gfl", help="teacher and student of params.yaml (default: %(default)s)")
    parser.add_argument("--iterations", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=2, help="trials at once (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="default: results/tuning.csv, or trials.csv")
    _params(parser)


def _one_kind_of_trial(args: Namespace) -> str | None:
    return "name methods (see docs/methods.md) or a file of trials" if bool(args.methods) == bool(args.trials) else None


def _who(text: str) -> str:
    if not re.fullmatch(r"\w[\w.-]*", text):
        raise argparse.ArgumentTypeError(f"'{text}' names a folder: letters, digits, '_', '.' and '-'")
    return text


def _submit(parser: ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="somebody's folder of this experiment")
    parser.add_argument("--who", type=_who, required=True, metavar="NAME", help="names the folder that they get")
    _params(parser)


def _executor(parser: ArgumentParser, jobs: int) -> None:
    parser.add_argument("--executor", choices=("local", "slurm"), default="local", help="(default: %(default)s)")
    parser.add_argument(
        "--jobs", type=number(1, math.inf, int), default=jobs, help="stages at once (default: %(default)s)"
    )
    parser.add_argument(
        "--slurm", nargs="+", default=[], metavar="KEY=VALUE", help="partition=..., gpus_per_node=1, ..."
    )


def _launch(parser: ArgumentParser) -> None:
    _executor(parser, 2)
    parser.add_argument("--only", nargs="+", default=[], metavar="GLOB", help="these stages and what they need")
    parser.add_argument("--partial", action="store_true", help="do without weights that nobody asks for")


def _smoke(parser: ArgumentParser) -> None:
    _executor(parser, os.cpu_count() or 1)
    parser.add_argument("--every", action="store_true", help="methods on all detectors that they fit, not on one each")


def _pairs_of_text(args: Namespace) -> str | None:
    wrong = [one for one in args.slurm if "=" not in one]
    return f"--slurm {wrong[0]}: write KEY=VALUE" if wrong else None


#: By the name of the module below ``benchmark``: the pipeline's stages in their order, then what is run by hand.
COMMANDS = {
    "closures": Command(_nothing),
    "look": Command(_prepare),
    "prepare": Command(_prepare),
    "plan": Command(_plan, _only_dry),
    "train": Command(_train),
    "match": Command(_match),
    "evaluate": Command(_evaluate),
    "cost": Command(_cost),
    "key_regions": Command(_key_regions, _one_subject),
    "region_figures": Command(_region_figures),
    "report": Command(_report),
    "summary": Command(_summary),
    "notebooks": Command(_notebooks, _known_notebooks),
    "check": Command(_check),
    "fetch": Command(data.fetch, data.what_is_fetched),
    "launch": Command(_launch, _pairs_of_text),
    "submit": Command(_submit),
    "verdict": Command(_verdict),
    "claims": Command(_claims),
    "convert": Command(data.convert, data.sound_conversion),
    "front": Command(_front),
    "smoke": Command(_smoke, _pairs_of_text),
    "training.combinations": Command(_params),
    "tune": Command(_tune, _one_kind_of_trial),
    "methods": Command(_methods),
    "data.minicoco": Command(data.archive("minicoco")),
    "data.minicrowd": Command(data.archive("minicrowd")),
    "data.pretrain": Command(data.pretrain),
}
