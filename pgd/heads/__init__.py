"""Readers of mmdet's dense heads: one file a head or family. A file in this folder is all that a new head needs.

See :class:`pgd.dense.HeadReader` for what a reader may override.
"""

import importlib
import pkgutil

from pgd import ops

# mmdet's models import mmcv's operators
ops.install()

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
