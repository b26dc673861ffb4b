"""What a killed training goes on from: the newest of its checkpoints that is whole, its own, and finite.

mmengine takes the file that ``last_checkpoint`` names, and loads of it what fits. A kill may have cut that name off, a
crash of the machine the checkpoint itself, and a file of another training would be loaded in part.
"""

from __future__ import annotations

import copy
import re
import sys
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope
from torch import Size, Tensor

import pgd.plugin  # noqa: F401  registers with mmdet, and lets torch read mmengine's history
from pgd.checkpoint import written

#: the file in which mmengine looks up where to go on
POINTER = "last_checkpoint"
#: what mmengine saves to go on from
PARTS = ("meta", "state_dict", "optimizer", "param_schedulers", "message_hub")
#: what is read of ``meta``; the last two are from :class:`benchmark.training.hooks.Record`
META = ("iter", "epoch", "seed", "train_seconds", "head_memory")
#: ending of a file that is no good, which is kept for whoever wants to look
UNUSABLE = ".unusable"


def checkpoints(folder: Path) -> list[Path]:
    """The numbered checkpoints in a folder, newest first."""
    named = ((re.fullmatch(r"iter_(\d+)\.pth", path.name), path) for path in folder.iterdir() if path.is_file())
    numbered = {int(match[1]): path for match, path in named if match}
    return [numbered[number] for number in sorted(numbered, reverse=True)]


def entries(model: dict) -> dict[str, Size]:
    """Names and shapes of what a training saves of a model."""
    init_default_scope("mmdet")
    return {name: value.shape for name, value in MODELS.build(copy.deepcopy(model)).state_dict().items()}


def tensors(content: object, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """All tensors in nested dictionaries and lists, with where they are."""
    if isinstance(content, Tensor):
        yield name, content
    elif isinstance(content, dict | list | tuple):
        for key, value in content.items() if isinstance(content, dict) else enumerate(content):
            yield from tensors(value, f"{name}.{key}".lstrip("."))


def is_whole(path: Path) -> bool:
    """Whether a file is a zip, as torch writes them, and its content what its checksums say; torch looks at none."""
    try:
        with zipfile.ZipFile(path) as file:
            return file.testzip() is None
    except OSError:
        raise
    except Exception:  # the reader raises nearly anything on junk
        return False


def flaw(path: Path, own: Mapping[str, Size], seed: int) -> str | None:
    """Why a training cannot go on from a checkpoint; None where it can.

    Args:
        path: of the checkpoint.
        own: names and shapes of the training's own entries.
        seed: of the training.
    """
    if not is_whole(path):
        return "cut off or damaged"
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception:  # so does torch's
        return "no checkpoint of plain data"
    parts = content if isinstance(content, dict) else {}
    meta = parts["meta"] if isinstance(parts.get("meta"), dict) else {}
    absent = [part for part in PARTS if part not in parts] + [f"meta.{key}" for key in META if key not in meta]
    if absent:
        return f"without '{absent[0]}'"
    if meta["seed"] != seed:
        return f"of seed {meta['seed']}, not {seed}"
    found = {name: value.shape for name, value in tensors(content["state_dict"])}
    if other := sorted(name for name in own.keys() | found.keys() if own.get(name) != found.get(name)):
        return f"of another model ({len(other)} entries differ, first: {other[0]})"
    saved = tensors({part: content[part] for part in ("state_dict", "optimizer")})
    if broken := [name for name, value in saved if value.is_floating_point() and not value.isfinite().all()]:
        return f"not finite ({len(broken)} entries, first: {broken[0]})"
    return None


def point_to_newest(folder: Path, model: dict, seed: int) -> Path | None:
    """Let mmengine go on from the newest checkpoint in ``folder`` that is good; None where a training starts anew.

    Newer ones are set aside under another name, each with a line on stderr.

    Args:
        folder: of a training's checkpoints.
        model: of its config.
        seed: of the training.
    """
    found = checkpoints(folder)
    own = entries(model) if found else {}
    for path in found:
        if (why := flaw(path, own, seed)) is None:
            with written(folder / POINTER) as partial:
                partial.write_text(str(path), encoding="utf-8")
            return path
        aside = path.rename(path.with_name(path.name + UNUSABLE))
        print(f"{path}: {why}; the training does not go on from it, and it is kept as {aside.name}", file=sys.stderr)
    (folder / POINTER).unlink(missing_ok=True)
    if found:
        print(f"{folder}: no good checkpoint is left; the training starts anew", file=sys.stderr)
    return None
