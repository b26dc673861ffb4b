"""The door to mmdet: what a config names in ``custom_imports = dict(imports=["pgd.plugin"])``.

Importing this module serves mmcv's operators where mmcv is not compiled (:mod:`pgd.ops`), lets ``weights_only=True``
read mmengine's log history (:func:`pgd.checkpoint.allow_mmengine_history`), and registers with mmdet the
:class:`~pgd.distiller.Distiller`, the metrics, the readers (:mod:`pgd.heads`) and the parts of detectors
(:mod:`pgd.detectors`). A script imports it before anything of mmdet.
"""

from pgd import checkpoint, ops

ops.install()
checkpoint.allow_mmengine_history()

from mmdet.registry import METRICS  # noqa: E402

import pgd.detectors  # noqa: E402
import pgd.heads  # noqa: E402, F401
from pgd.distiller import Distiller  # noqa: E402
from pgd.evaluation import CocoBoxes, CrowdHumanBoxes  # noqa: E402
from pgd.methods import METHODS, Method  # noqa: E402

# Not where they are defined: the metrics themselves serve without mmdet.
METRICS.register_module(module=CocoBoxes)
METRICS.register_module(module=CrowdHumanBoxes)

__all__ = ["METHODS", "CocoBoxes", "CrowdHumanBoxes", "Distiller", "Method"]
