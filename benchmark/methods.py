"""Which methods there are, what they need and which detectors they fit: ``python -m benchmark.methods``.

Writes the table of docs/methods.md, which a test compares with the registry, and docs/published.md beside it.
"""

from __future__ import annotations

if __name__ == "__main__":
    # help and usage errors come before the imports that take seconds
    from benchmark.experiment.cli import answer_early

    answer_early("methods")

import functools
import inspect
import re
from dataclasses import replace

import pgd.plugin  # noqa: F401  registers with mmdet
from benchmark.evidence import literature
from benchmark.evidence.markdown import markdown_table
from benchmark.experiment.cli import command_parser, run_cli
from benchmark.experiment.config import MINI, detector_config
from benchmark.experiment.contexts import untrained_context
from benchmark.experiment.quiet import quiet
from benchmark.experiment.settings import Detector
from benchmark.experiment.workspace import ROOT
from pgd.dense import UnsupportedHead
from pgd.methods import METHODS, MethodContext, build_method
from pgd.methods.base import NEEDS, PLACES, MethodError, method_class
from pgd.scaling import FULL, Size, published_settings

#: detectors that have a config in small, in the order of PGD's table, then those that it does not have
DETECTORS = ("fcos", "autoassign", "atss", "gfl", "ddod", "retinanet", "vfnet")
TABLE, PUBLISHED = ROOT / "docs" / "methods.md", ROOT / "docs" / "published.md"
INTRO = """\
# The methods

Generated from the registry by `python -m benchmark.methods`. The formula of each method, its settings for each
detector and where it differs from its release stand at the top of its file in [pgd/methods/](../pgd/methods). What
others measured with them, and which of those figures can be compared: [published.md](published.md).

- **Place**: where teacher and student are compared; of methods that also compare predictions, where features are.
{places}
- **Needs**: what a training step has to hand to the method:
{needs}
- **Extra parameters**: trained with the student and thrown away after it; for GFL at full scale (256 channels,
  80 classes).
- **Detectors**: those of the benchmark that the method fits; the reasons of the others stand below the table.

"""
#: why a method that a reader may look for has no file
ABSENT = """
## Not here, because

- **DETRDistill** and its kin for DETR: they match object queries and decoder stages, which dense heads do not have.
- **ViTKD**: it compares the token grids of vision transformers, of which the benchmark has none; MGD holds its idea.
- **AFD**, **AICSD**: made for segmentation; they need dense class maps or weights that nobody has set for detectors.
- **AvatarKD** (ACM MM 2023): as released a dropout on the teacher's features around CWD, MGD or MasKD; which of them
  stands behind its figures on FCOS and with an R101 on RetinaNet is not said.
- **FreeKD** (CVPR 2024): needs tokens as MasKD, and how they are learned is not released.
- **ScaleKD** (CVPR 2023): notes of it leave out the widths of its branches and the depth of its attention; no code was
  found.
- **FTPD** (IEEE TCSVT 2025): only the abstract could be read, and no code was found.
- **Closed-loop** distillation (Pattern Recognition 149, 2024): only the abstract could be read, and no code was found.
- **DrKD** (Pattern Recognition 161, 2025): only its citation was found.
- **Data storage** and **NMS-KSD** (ICCVW 2023, IEEE Access 2025): layer, score and thresholds are in no text or code
  that could be read.
- **TBD** (Pattern Recognition 137, 2023, arXiv 2208.03006): its formulas could not be read, and no code was found.
"""


@functools.cache
def mini_context(detector: str) -> MethodContext:
    """The pair of a detector's configs in small."""
    model = detector_config(Detector(f"benchmark/configs/mini/{detector}_r18.py")).model
    return untrained_context(model, model)


def full_context(detector: str) -> MethodContext:
    """The same at full scale."""
    channels = dict.fromkeys(("student_channels", "teacher_channels"), FULL.channels)
    towers = dict.fromkeys(("student_tower_channels", "teacher_tower_channels"), FULL.channels)
    return replace(mini_context(detector), **channels, **towers, num_classes=80, tower_blocks=FULL.blocks)


def refusal(method: str, detector: str, size: Size = MINI) -> str | None:
    """Why a method does not fit a detector of the benchmark; None where it does."""
    context = mini_context(detector) if size == MINI else full_context(detector)
    try:
        build_method(method, context, **published_settings(method, detector, size))
    except (MethodError, UnsupportedHead) as error:
        return str(error)
    return None


def _source(method: str) -> str:
    """The first sentence of a method's file."""
    text = inspect.getdoc(inspect.getmodule(method_class(method)))
    return " ".join(text.split("\n\n")[0].split()).rstrip(".")


def row(method: str) -> list[str]:
    """One line of the table."""
    built = build_method(method, full_context("gfl"), **published_settings(method, "gfl"))
    parameters = sum(p.numel() for p in built.parameters())
    served = [detector for detector in DETECTORS if refusal(method, detector) is None]
    needs = ", ".join(need.replace("_", " ") for need in NEEDS if need in built.needs)
    detectors = "all" if len(served) == len(DETECTORS) else ", ".join(served)
    return [f"`{method}`", _source(method), built.place, needs, f"{parameters:,}" if parameters else "none", detectors]


def reasons(method: str) -> list[str]:
    """Lines that say why a method does not fit some detectors, those of one reason together."""
    by_reason: dict[str, list[str]] = {}
    for detector in DETECTORS:
        if (why := refusal(method, detector)) is not None:
            by_reason.setdefault(why, []).append(detector)
    return [f"- `{method}`, {', '.join(names)}: {why}.\n" for why, names in by_reason.items()]


def table() -> str:
    """The whole page."""
    header = ["Method", "Source", "Place", "Needs", "Extra parameters", "Detectors"]
    methods = sorted(METHODS.module_dict)
    needs = "\n".join(f"  - *{name.replace('_', ' ')}*: {what}" for name, what in NEEDS.items())
    places = "\n".join(f"  - *{name}*: {what}" for name, what in PLACES.items())
    body = markdown_table(header, map(row, methods), set(header) - {"Extra parameters"})
    text = (
        INTRO.format(needs=needs, places=places)
        + body
        + "\n"
        + "".join(line for method in methods for line in reasons(method))
        + ABSENT
    )
    return re.sub(r":attr:`Method\.(\w+)`", r"`\1`", text).replace("``", "`")


def main() -> None:
    args = command_parser("methods").parse_args()
    quiet()
    pages = {args.out: table()} if args.out else {TABLE: table(), PUBLISHED: literature.page()}
    for path, text in pages.items():
        path.write_text(text, encoding="utf-8")
        print(f"{path} written")


if __name__ == "__main__":
    run_cli(main)
