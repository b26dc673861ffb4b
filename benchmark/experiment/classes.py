"""The names of classes that a checkpoint keeps beside its weights."""

from __future__ import annotations

from pathlib import Path

import torch


def listed_classes(path: Path) -> tuple[str, ...] | None:
    """What mmdet wrote down of the classes that a detector was trained for; None where there is no list of names.

    mmdet copies ``metainfo.classes``, and numbers classes by the annotation file: their order may be another one.
    """
    content = torch.load(path, map_location="cpu", weights_only=True)
    meta = _dict_in(content, "meta")
    meta = _dict_in(meta, "dataset_meta") or meta
    # upper case: as mmdet before 3.0 wrote it
    names = meta.get("classes", meta.get("CLASSES"))
    names = (names,) if isinstance(names, str) else names
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        return None
    return tuple(names) or None


def _dict_in(content: object, key: str) -> dict:
    """The dictionary under a key; empty where there is none."""
    found = content.get(key) if isinstance(content, dict) else None
    return found if isinstance(found, dict) else {}
