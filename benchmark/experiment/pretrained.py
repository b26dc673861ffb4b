"""Pretrained weights that a config names by an address: fetched once, checked by their digest, read as plain weights.

mmengine by itself takes what comes under an address, or lies in torch's cache under its name, without a look at the
digest in that name, and unpickles all that it asks for. So a training gets the path of a file that was checked instead.
What a result depends on stays the address: the path is no part of any digest.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import torch
import torchvision
from mmengine.config import Config
from mmengine.dist import barrier, is_main_process
from mmengine.runner.checkpoint import get_deprecated_model_names, get_external_models

from benchmark.data.download import Remote, fetch, named_digest
from benchmark.experiment.names import unknown
from benchmark.experiment.settings import SettingsError
from pgd.checkpoint import load_state

#: which of torchvision's weights a model's name alone means to mmengine
FIRST = "imagenet1k_v1"


def _of_torchvision() -> dict[str, str]:
    """Addresses by mmengine's names: ``resnet50``, ``resnet50.imagenet1k_v2``, ``resnet50.default``."""
    models = torchvision.models.list_models(torchvision.models)
    weights = {model: torchvision.models.get_model_weights(model).__members__ for model in models}
    exact = {f"{model}.{name.lower()}": one.url for model, known in weights.items() for name, one in known.items()}
    return exact | {model: exact[name] for model in models if (name := f"{model}.{FIRST}") in exact}


def _of_openmmlab() -> dict[str, str]:
    """Addresses by mmengine's names, as ``detectron2/resnet50_caffe``."""
    known = get_external_models()
    return known | {old: known[new] for old, new in get_deprecated_model_names().items() if new in known}


NAMED = {
    "torchvision": _of_torchvision,
    "modelzoo": _of_torchvision,
    "open-mmlab": _of_openmmlab,
    "openmmlab": _of_openmmlab,
}


def cache() -> Path:
    """Where torch keeps what it has downloaded (``TORCH_HOME``)."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def remote_of(source: str) -> Remote:
    """The published file that an ``init_cfg`` names: ``torchvision://``, ``open-mmlab://`` or an address.

    Raises:
        SettingsError: nobody knows the name, or nothing tells whether what comes is the file.
    """
    scheme, _, name = source.partition("://")
    address = source
    if scheme in NAMED:
        known = NAMED[scheme]()
        if name not in known:
            alike = [one for one in known if ("." in one) == ("." in name)]
            raise SettingsError(f"{source}: {unknown('weights', name, alike)}")
        address = known[name]
    elif scheme not in ("http", "https"):
        raise SettingsError(
            f"{source}: no known kind of address; give torchvision://, open-mmlab://, https:// or the path of a file"
        )
    name = urlsplit(address).path.rpartition("/")[2]
    if (digest := named_digest(name)) is None:
        raise SettingsError(
            f"{source}: no digest in its name to check it by (as in resnet50-0676ba61.pth); download it yourself and "
            "give the path of the file"
        )
    return Remote(name, address, sha256=digest, remedy=f"download it elsewhere and put it into {cache()}")


def _named(node: object) -> Iterator[dict]:
    """Every ``init_cfg`` of a model that names a checkpoint."""
    if isinstance(node, dict):
        if node.get("type") == "Pretrained":
            yield node
        for part in node.values():
            yield from _named(part)
    elif isinstance(node, list | tuple):
        for part in node:
            yield from _named(part)


def _fetch_in_turn(remote: Remote) -> Path:
    """Of many processes the first fetches it, then one of each machine that has a cache of its own; others find it."""
    turn = 0 if is_main_process() else 1 if os.environ.get("LOCAL_RANK") == "0" else 2
    for now in range(3):
        if now == turn:
            path = fetch(remote, cache())
        barrier()
    return path


def local_weights(cfg: Config) -> None:
    """Put checked files into the place of the addresses that the model of a config names.

    Raises:
        SettingsError: an address that nobody knows or that cannot be checked.
        DataError: it cannot be downloaded, or is not the published file.
        CheckpointError: a file that holds anything but weights.
    """
    for init in _named(cfg.model):
        if "://" in init["checkpoint"]:
            init["checkpoint"] = str(_fetch_in_turn(remote_of(init["checkpoint"])))
        # mmengine's own reader would end in a traceback
        load_state(init["checkpoint"])
