"""A teacher's features, stored once for all students that learn from it: when that is possible, and doing it.

``work/features/<pair>`` belongs to no stage: its content follows from what its key names, whoever needs it first makes
it, and it can be deleted at any time.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from tqdm import tqdm

from benchmark.training.draws import stacked
from pgd.checkpoint import load_strict
from pgd.teacher_features import MixedSizes, store

#: what leaves an image as it is or flips it
REPEATABLE = {"LoadImageFromFile", "LoadImageOnce", "LoadAnnotations", "Resize", "RandomFlip", "PackDetInputs"}
#: features beyond this are not worth their disk (GB)
MOST = 16.0


def refusal(cfg: Config) -> str | None:
    """Why the teacher of a training must look at each batch itself; None where its features can be stored."""
    names = [step["type"] for step in cfg.train_dataloader.dataset.pipeline]
    if other := [name for name in names if name not in REPEATABLE]:
        return f"{other[0]} changes images each time"
    if torch.cuda.is_available():
        return "it is fast enough on a GPU"
    if cfg.optim_wrapper.type != "OptimWrapper":
        return f"{cfg.optim_wrapper.type} changes the precision"
    return None


def _batches(cfg: Config) -> Iterator[tuple[torch.Tensor, list]]:
    """All training images as they are and flipped, in batches of the training's size: the last is filled up."""
    preprocess = MODELS.build(cfg.model.data_preprocessor)
    size = cfg.train_dataloader.batch_size
    for flipped in (0.0, 1.0):
        part = cfg.train_dataloader.dataset.copy()
        part.pipeline = [step | {"prob": flipped} if step["type"] == "RandomFlip" else step for step in part.pipeline]
        if flipped and all(step["type"] != "RandomFlip" for step in part.pipeline):
            return
        dataset = DATASETS.build(part)
        rounds = tqdm(range(0, len(dataset), size), desc="teacher's features", mininterval=5, leave=False)
        for start in rounds:
            data = preprocess(stacked([dataset[i % len(dataset)] for i in range(start, start + size)]), True)
            yield data["inputs"].contiguous(memory_format=torch.channels_last), data["data_samples"]


def _room(folder: Path, cfg: Config, teacher: torch.nn.Module) -> str | None:
    """Why there is no room for the features, with a first batch to measure by."""
    images, _ = next(_batches(cfg))
    with torch.no_grad():
        one = sum(m[0].numel() for m in teacher.extract_feat(images)) * 4
    need = 2 * len(DATASETS.build(cfg.train_dataloader.dataset)) * one / 1e9
    free = shutil.disk_usage(folder).free / 1e9
    if need > MOST:
        return f"they would take {need:.0f} GB"
    if need > 0.9 * free:
        return f"they need {need:.1f} GB and {folder} has {free:.1f} GB left; free some to train faster"
    return None


def stored_features(cfg: Config, folder: Path, basis: dict, precision: str = "float32") -> Path | None:
    """The folder with the features of a training's teacher, made if need be; None where it must look itself.

    Args:
        cfg: the training.
        folder: of the teacher.
        basis: what its features depend on but for the config.
        precision: see :mod:`pgd.teacher_features`.
    """
    if why := refusal(cfg):
        print(f"the teacher looks at each batch: {why}")
        return None
    # not the run's own part: its seed, and all but the teacher
    parts = [cfg.train_dataloader.dataset.copy(), cfg.model.data_preprocessor, cfg.model.teacher, precision]
    parts[0].pop("seed", None)
    loading = cfg.train_dataloader.batch_size, torch.get_num_threads()
    text = json.dumps([basis, loading, *parts], sort_keys=True, default=repr)
    key = hashlib.sha256(text.encode()).hexdigest()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        # another training of the same teacher may be at it
        fcntl.flock(lock, fcntl.LOCK_EX)
        stamp = folder / "key"
        if stamp.is_file() and stamp.read_text() == key:
            return folder
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        init_default_scope("mmdet")
        teacher = MODELS.build(cfg.model.teacher)
        load_strict(teacher, cfg.model.teacher_checkpoint, "teacher")
        teacher.eval().to(memory_format=torch.channels_last)
        why = _room(folder, cfg, teacher)
        if why is None:
            try:
                store(folder, _batches(cfg), teacher.extract_feat, precision)
            except MixedSizes as error:
                why = str(error)
        if why is not None:
            shutil.rmtree(folder)
            print(f"the teacher looks at each batch: {why}")
            return None
        stamp.write_text(key)
        return folder
