"""Prediction-Guided Distillation and its rivals for mmdet's dense detectors.

Importing this package is all that a config needs (``custom_imports = dict(imports=['pgd'])``): it serves mmcv's
operators where mmcv is not compiled, makes mmengine's checkpoints loadable and registers
:class:`pgd.distiller.Distiller`, :class:`pgd.evaluation.CocoBoxes` and :class:`pgd.evaluation.CrowdHumanBoxes` with
mmdet.
"""

import sys

from pgd import ops

ops.install()

# mmdet wants seaborn for a plot of object tracking but takes no for an answer: a quarter of the time to import it.
_seaborn = sys.modules.get("seaborn")
sys.modules["seaborn"] = None
import mmdet.utils  # noqa: E402, F401

del sys.modules["seaborn"]
if _seaborn is not None:
    sys.modules["seaborn"] = _seaborn

from pgd import checkpoint  # noqa: E402

checkpoint.allow_mmengine_history()

from pgd.distiller import Distiller  # noqa: E402
from pgd.evaluation import CocoBoxes, CrowdHumanBoxes  # noqa: E402
from pgd.methods import METHODS, Method  # noqa: E402

__all__ = ["METHODS", "CocoBoxes", "CrowdHumanBoxes", "Distiller", "Method"]
