"""Prediction-Guided Distillation and its rivals for mmdet's dense detectors.

Importing this package imports nothing else and changes nothing. What a config needs is the plug-in
(``custom_imports = dict(imports=["pgd.plugin"])``, :mod:`pgd.plugin`); a script imports it before mmdet. The names in
``__all__`` are looked up when they are first asked for.
"""

import importlib
import sys
import warnings

#: where each public name comes from; those of the plug-in need mmdet
_PLACES = {
    "METHODS": "pgd.methods",
    "Method": "pgd.methods",
    "CocoBoxes": "pgd.plugin",
    "CrowdHumanBoxes": "pgd.plugin",
    "Distiller": "pgd.plugin",
}

#: what a student can take over from its teacher before training
INHERIT_CHOICES = ("none", "head+neck")

__all__ = ["INHERIT_CHOICES", "METHODS", "CocoBoxes", "CrowdHumanBoxes", "Distiller", "Method"]


def __getattr__(name: str):
    if name not in _PLACES:
        raise AttributeError(f"module 'pgd' has no attribute '{name}'")
    return getattr(importlib.import_module(_PLACES[name]), name)


def _config_asks() -> bool:
    """Whether a config's ``custom_imports`` names this package itself, and no line of Python or name below it."""
    frame = sys._getframe(2)
    # between this file and who asked stands nothing but Python's own import machinery
    while frame is not None and frame.f_code.co_name != "import_module":
        if not frame.f_globals.get("__name__", "").startswith("importlib."):
            return False
        frame = frame.f_back
    if frame is None or frame.f_back is None or frame.f_locals.get("name") != __name__:
        return False
    return frame.f_back.f_code.co_name == "import_modules_from_strings"


if _config_asks():
    # Earlier configs name the package itself: without the plug-in they would find no Distiller in mmdet's registry.
    warnings.warn(
        'custom_imports = dict(imports=["pgd"]) is the old spelling; write imports=["pgd.plugin"]',
        FutureWarning,
        stacklevel=2,
    )
    importlib.import_module("pgd.plugin")
