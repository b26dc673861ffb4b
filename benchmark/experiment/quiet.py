"""Silences what a user can do nothing about, and skips what only costs time, each at its source."""

from __future__ import annotations

import gc
import logging
import warnings


def skip_config_formatting() -> None:
    """Keep mmengine from having yapf lay out the whole config for a dump that nobody reads: seconds for each Runner."""
    import mmengine.config.config

    mmengine.config.config.FormatCode = lambda text, **options: (text, True)


def keep_imports() -> None:
    """Leave what is loaded by now out of every later collection of garbage.

    mmengine asks for one for each data set of a Runner, a third of a second each time with torch and mmdet loaded.
    """
    gc.freeze()


def quiet() -> None:
    """Filter the known noise of the pinned libraries; anything new still shows. To be called after the imports."""
    import pycocotools.coco
    from mmengine.logging import MMLogger

    skip_config_formatting()
    keep_imports()

    for text in (
        "pkg_resources is deprecated",  # mmengine 0.10.7 imports it
        "DeprecationWarning: `num_anchors` is deprecated",  # mmdet 3.3.0's own heads use it
        "DeprecationWarning: pos_bboxes is deprecated",
        ".*torch.meshgrid.*indexing",
    ):
        warnings.filterwarnings("ignore", message=text)
    logging.getLogger("mmengine").setLevel(logging.ERROR)
    # what is said before a Runner brings its own logger: methods that are built to be looked at have no weights
    MMLogger.get_current_instance().setLevel(logging.ERROR)
    # pycocotools reports every file it loads with a plain print.
    pycocotools.coco.print = lambda *args, **kwargs: None
