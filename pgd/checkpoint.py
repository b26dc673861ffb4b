"""Checkpoints: loaded safely, matched strictly, written atomically; inheriting and exporting.

Nothing here unpickles code: files are read with ``weights_only=True``.
"""

from __future__ import annotations

import io
import logging
import pickle
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from mmengine.logging import print_log
from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor, nn


class CheckpointError(RuntimeError):
    """A checkpoint is missing, unreadable or does not fit; the sentence names the file and the remedy."""


def allow_mmengine_history() -> None:
    """Let ``weights_only=True`` read what mmengine itself puts into a resumable checkpoint: its log history.

    A pickled ``HistoryBuffer`` names its own statistics as ``getattr(HistoryBuffer, "mean")``. Allowing ``getattr``
    would open the door to everything, so the name is bound to a function that serves just these.
    """
    import numpy as np
    from mmengine.logging.history_buffer import HistoryBuffer

    def statistic(owner: type, name: str) -> object:
        if owner is not HistoryBuffer or name not in {"min", "max", "current", "mean"}:
            raise pickle.UnpicklingError(f"a checkpoint asked for getattr({owner!r}, {name!r})")
        return getattr(owner, name)

    # files of numpy 1 call its functions by their old place
    functions = np._core.multiarray._reconstruct, np._core.multiarray.scalar
    old = [(function, f"numpy.core.multiarray.{function.__name__}") for function in functions]
    dtypes = {type(np.dtype(t)) for t in (np.float32, np.float64, np.int32, np.int64)}
    array = [np.ndarray, np.dtype, *functions, *old, *dtypes]
    torch.serialization.add_safe_globals([HistoryBuffer, *array, (statistic, "builtins.getattr")])


@contextmanager
def written(target: Path) -> Iterator[Path]:
    """A place beside ``target`` to write to, which is moved there in the end: it leaves the whole file or the old one.

    Raises:
        OSError: it could not be written; names the file, which Python's own does not where the disk is full.
    """
    partial = target.with_name(target.name + ".partial")
    try:
        yield partial
        partial.replace(target)
    except Exception as error:
        partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(target)) from error
        raise


def atomic_save(content: object, path: Path) -> None:
    """``torch.save`` that leaves either the whole file or the old one, also when killed.

    Raises:
        OSError: there is no room for it, among others (torch itself would not say so).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with written(path) as partial:
        partial.write_bytes(buffer.getbuffer())


#: where checkpoints keep their state dict: mmengine's, and what is common elsewhere
KEYS = ("state_dict", "model")


def load_state(path: str | Path) -> dict[str, Tensor]:
    """The state dict in a checkpoint, bare or under one of :data:`KEYS`, on the CPU.

    Raises:
        CheckpointError: the file is missing, truncated, or holds something else.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(
            f"{path}: no such checkpoint; check the path, or run the stage that writes it (see `dvc dag`)"
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # torch's own words advise to unpickle it nevertheless
        asked = re.search(r"GLOBAL (\S+)", str(error))
        what = f"it asks for {asked[1]}" if asked else "it is no pickle of plain data"
        raise CheckpointError(f"{path}: refused, no plain weights ({what}); is this a checkpoint?") from error
    except Exception as error:  # torch's readers raise nearly anything on junk
        raise CheckpointError(f"{path}: unreadable, probably cut off while written; delete it and run again") from error
    state = content
    if isinstance(content, dict):
        state = next((content[key] for key in KEYS if isinstance(content.get(key), dict)), content)
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise CheckpointError(f"{path}: no state dict of tensors in it; is this a checkpoint of a model?")
    return state


#: what wrappers put in front of a detector's names
PREFIXES = ("module.", "student.", "teacher.", "architecture.", "detector.", "model.")


def unwrapped(state: dict[str, Tensor], own: Collection[str]) -> dict[str, Tensor]:
    """``state`` without the prefixes of wrappers (data parallel, distillers, EMA), where names are ``own`` behind them.

    Entries beside the prefix, such as adapters or another model, are left out.
    """
    for prefix in PREFIXES:
        inner = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        if inner and not state.keys() & set(own):
            found = unwrapped(inner, own)
            if found.keys() & set(own):
                return found
    return state


def flat_copies(own: Collection[str]) -> set[str]:
    """What mmdet 2's EMA names its second copy: buffers such as ``ema_backbone_conv1_weight``.

    In the files that it writes the averages are under the plain names; the copy holds the weights without them.
    """
    return {f"ema_{name.replace('.', '_')}" for name in own}


def load_strict(module: nn.Module, path: str | Path, what: str) -> None:
    """Load a checkpoint whose names and shapes must be exactly the module's.

    Only the second copy of mmdet 2's EMA may stand beside them (:func:`flat_copies`).
    """
    own = module.state_dict()
    copies = flat_copies(own)
    state = {name: value for name, value in unwrapped(load_state(path), own).items() if name not in copies}
    missing, extra = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    shapes = sorted(k for k in own.keys() & state.keys() if own[k].shape != state[k].shape)
    if missing or extra or shapes:
        k = (shapes or missing or extra)[0]
        example = (
            f"{k} is {tuple(state[k].shape)}, not {tuple(own[k].shape)}"
            if shapes
            else f"{k} is {'missing' if missing else 'not part of the model'}"
        )
        raise CheckpointError(
            f"{path}: does not fit the {what} ({len(missing)} entries missing, {len(extra)} unknown, {len(shapes)} of "
            f"another shape; {example}); give a checkpoint of the same config"
        )
    if broken := [name for name, value in state.items() if value.is_floating_point() and not value.isfinite().all()]:
        raise CheckpointError(f"{path}: {broken[0]} of the {what} is not finite; it was spoilt in training")
    module.load_state_dict(state)


@dataclass
class InheritReport:
    """What a student took over from its teacher and what not."""

    copied: list[str] = field(default_factory=list)
    #: name -> why it was left
    skipped: dict[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict:
        """Every name, for a record."""
        return asdict(self)

    def __str__(self) -> str:
        """What was copied; then a line for each reason with the first names that were left for it."""
        text = f"inherited {len(self.copied)} tensors of neck and head from the teacher"
        if not self.skipped:
            return text
        reasons: dict[str, list[str]] = {}
        for name, why in self.skipped.items():
            reasons.setdefault("another shape" if why.startswith("shape") else why, []).append(name)
        name, why = next(iter(self.skipped.items()))
        lines = [f"{text}; left {len(self.skipped)} (first: {name}, {why})"]
        for why, names in reasons.items() if len(self.skipped) > 1 else ():
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            lines.append(f"  {len(names)}: {why}: {', '.join(names[:_NAMED])}{more}")
        return "\n".join(lines)


#: Names that the text of a report gives for each reason; its dictionary has all.
_NAMED = 6


def inherit(student: nn.Module, teacher: nn.Module) -> InheritReport:
    """Copy everything but the backbone by name and shape (PGD's ``init_student``).

    Nothing is left out silently: the report goes to mmengine's log too, as a warning where something was left.
    """
    own, state, report = student.state_dict(), teacher.state_dict(), InheritReport()
    for name, value in own.items():
        if name.startswith("backbone."):
            continue
        if name not in state:
            report.skipped[name] = "the teacher has no such entry"
        elif state[name].shape != value.shape:
            report.skipped[name] = f"shape {tuple(state[name].shape)} in the teacher, {tuple(value.shape)} here"
        else:
            value.copy_(state[name])
            report.copied.append(name)
    for name in state:
        if name not in own and not name.startswith("backbone."):
            report.skipped[name] = "the student has no such entry"
    print_log(str(report), logger="current", level=logging.WARNING if report.skipped else logging.INFO)
    return report


def export(model: nn.Module, path: str | Path, classes: Sequence[str] | None = None) -> None:
    """Write a detector's weights alone, as plain mmdet loads them; with ``classes``, mmdet finds their names too."""
    content: dict = {"state_dict": {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}}
    if classes is not None:
        content["meta"] = {"dataset_meta": {"classes": tuple(classes)}}
    atomic_save(content, Path(path))


def require_pretrained(backbone: nn.Module) -> InheritReport | None:
    """What a backbone took over from the weights that its ``init_cfg`` names; None where it names none.

    mmengine leaves out what does not fit and says so in a log that nobody reads; the student then starts from nothing.
    Parts that the weights know nothing of, such as deformable convolutions' offsets, are reported.

    Raises:
        CheckpointError: an entry of these weights did not become the backbone's, or most of its entries are not there.
    """
    init = getattr(backbone, "init_cfg", None) or {}
    if not isinstance(init, dict) or init.get("type") != "Pretrained":
        return None
    # mmengine takes a prefix with and without its dot, and where there is none, leaves data parallel's out
    source, prefix = init["checkpoint"], (init.get("prefix") or "module").removesuffix(".") + "."
    content = CheckpointLoader.load_checkpoint(source, map_location="cpu", logger="silent")
    content = content.get("state_dict", content)
    state = {name.removeprefix(prefix): value for name, value in content.items()}
    own = {name: value for name, value in backbone.state_dict().items() if value.is_floating_point()}
    absent = [name for name in own if name not in state]
    other = [name for name, value in own.items() if name in state and not value.cpu().equal(state[name].to(value))]
    if other or len(absent) > len(own) / 2:
        raise CheckpointError(
            f"{source}: {len(other) + len(absent)} of the backbone's {len(own)} entries are not from this file (first: "
            f"{(other or absent)[0]}); give weights of this architecture"
        )
    if absent:
        print_log(
            f"{source} lacks {len(absent)} of the backbone's {len(own)} entries (first: {absent[0]}); they start anew",
            logger="current",
            level=logging.WARNING,
        )
    return InheritReport(
        copied=[name for name in own if name in state],
        skipped=dict.fromkeys(absent, "the pretrained weights have no such entry"),
    )
