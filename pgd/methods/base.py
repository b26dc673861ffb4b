"""What a distillation method is: a module that maps one :class:`~pgd.dense.DistillStep` to named loss terms."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from mmengine.registry import Registry
from torch import Tensor, nn

if TYPE_CHECKING:
    from pgd.dense import DistillStep

METHODS = Registry("distillation method")

#: What a method can ask the distiller for.
NEEDS = frozenset({"neck", "towers", "predictions", "assignment"})


class MethodError(ValueError):
    """A method cannot be built as asked; the sentence says what to change."""


@dataclass(frozen=True)
class MethodContext:
    """What a method may know of the pair when it builds its adapters."""

    #: width of the neck features
    student_channels: int
    teacher_channels: int
    #: width of the head's towers
    student_tower_channels: int
    teacher_tower_channels: int
    num_levels: int
    num_classes: int
    strides: tuple[int, ...]
    #: bins of the box distributions (reg_max + 1), or None where the head has none
    bins: int | None
    #: whether positions are points (FCOS, AutoAssign) instead of anchors
    anchor_free: bool = False
    #: whether the student's assigner looks at predictions (DDOD)
    judges_predictions: bool = False


class Method(nn.Module):
    """Base of all methods. Its own parameters (adapters) are trained with the student and never exported.

    A subclass states what it ``needs``, takes its settings as keyword arguments after the context, and returns its
    loss terms, each a scalar whose name starts with ``loss_``. Sums over levels are its own business.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    #: name of the setting that scales the whole method, for tuning
    weight_setting: ClassVar[str] = "weight"
    #: whether the student's assigner shall judge the teacher's predictions instead of the student's
    assign_by_teacher: bool = False

    def __init__(self, context: MethodContext) -> None:
        super().__init__()
        self.context = context

    def forward(self, step: DistillStep) -> dict[str, Tensor]:
        raise NotImplementedError


def method_class(name: str) -> type[Method]:
    """The registered class; raises :class:`MethodError` naming the choices."""
    cls = METHODS.get(name)
    if cls is None:
        raise MethodError(f"no distillation method '{name}'; there are: {', '.join(sorted(METHODS.module_dict))}")
    return cls


def settings_of(name: str) -> dict[str, Any]:
    """The settings a method takes, with their defaults."""
    settings: dict[str, Any] = {}
    # A subclass that takes ``**settings`` hands them on to its base.
    for cls in method_class(name).__mro__:
        parameters = list(inspect.signature(cls.__init__).parameters.values())[2:]
        named = {p.name: p.default for p in parameters if p.kind is not inspect.Parameter.VAR_KEYWORD}
        settings = {**named, **settings}
        if len(named) == len(parameters):
            return settings
    return settings


def build_method(name: str, context: MethodContext, **settings: Any) -> Method:
    """Build a registered method; an unknown setting is an error that lists the known ones."""
    known = settings_of(name)
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise MethodError(f"method '{name}' has no setting '{unknown[0]}'; it has: {', '.join(known) or 'none'}")
    return method_class(name)(context, **settings)
