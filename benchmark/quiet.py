"""Silences what a user can do nothing about, each at its source."""

from __future__ import annotations

import logging
import warnings


def quiet() -> None:
    """Filter the known noise of the pinned libraries; anything new still shows."""
    import pycocotools.coco

    for text in (
        "pkg_resources is deprecated",  # mmengine 0.10.7 imports it
        "DeprecationWarning: `num_anchors` is deprecated",  # mmdet 3.3.0's own heads use it
        ".*torch.meshgrid.*indexing",
    ):
        warnings.filterwarnings("ignore", message=text)
    logging.getLogger("mmengine").setLevel(logging.ERROR)
    # pycocotools reports every file it loads with a plain print.
    pycocotools.coco.print = lambda *args, **kwargs: None
