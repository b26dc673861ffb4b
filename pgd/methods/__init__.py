"""Distillation methods: one file each. A file in this folder that registers a :class:`Method` is all a method needs."""

import importlib
import pkgutil

from pgd.methods.base import METHODS, Method, MethodContext, TowerPlace, build_method

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["METHODS", "Method", "MethodContext", "TowerPlace", "build_method"]
