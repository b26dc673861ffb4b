"""Parts of detectors that mmdet lacks, registered with mmdet: one file a detector."""

import importlib
import pkgutil

from pgd import ops

# mmdet's models import mmcv's operators
ops.install()

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
