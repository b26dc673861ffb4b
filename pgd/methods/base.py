"""What a distillation method is: a module that maps one :class:`~pgd.dense.DistillStep` to named loss terms."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from mmengine.registry import Registry
from torch import Tensor, nn

if TYPE_CHECKING:
    from pgd.dense import DistillStep

METHODS = Registry("distillation method")

#: What a method can ask the distiller for; what it did not ask for is None in its :class:`~pgd.dense.DistillStep`.
NEEDS = {
    "neck": "neck features of both",
    "towers": "features of both heads' towers, where :attr:`Method.tower_place` says",
    "predictions": "class scores and boxes of both",
    "assignment": "which positions the student's head made positive",
    "ground_truth": "boxes and classes of the objects",
}

#: Where a method compares teacher and student.
PLACES = {
    "neck": "features of the neck",
    "towers": "features of the head's towers",
    "key regions": "features of the head's towers, weighed by the quality of the teacher's predictions",
    "predictions": "class scores and boxes",
}


class TowerPlace(NamedTuple):
    """Where in the towers features are taken."""

    #: convolution block, from 0
    block: int = 0
    #: behind the block's activation, or before it (behind its norm)
    activated: bool = True


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
    #: whether positions get labels (not in AutoAssign)
    assigns_labels: bool = True
    #: convolution blocks of a tower
    tower_blocks: int = 4
    #: predictions a position (9 for RetinaNet)
    per_position: int = 1


class Method(nn.Module):
    """Base of all methods. Its own parameters (adapters) are trained with the student and never exported.

    A subclass states what it ``needs``, takes its settings as keyword arguments after the context, and returns its
    loss terms, each a scalar whose name starts with ``loss_``. Sums over levels are its own business. Defaults of
    settings are those of GFL at full scale where the method has been published on GFL.
    """

    #: what readers call it; by default its registered name
    title: str = ""
    #: of :data:`PLACES`; where features and predictions are compared, that of the features
    place: str = "other"
    #: of :data:`NEEDS`
    needs: frozenset[str] = frozenset()
    #: where ``towers`` are taken
    tower_place: TowerPlace = TowerPlace()
    #: name of the setting that scales the whole method, for tuning
    weight_setting: ClassVar[str] = "weight"
    #: settings at full scale by detector (mmdet's type in lower case) where they differ from the defaults
    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    #: how settings go with the size of a detector, exponents for :func:`pgd.scaling.scaled`
    scaling: ClassVar[Mapping[str, Mapping[str, float]]] = {}
    #: whether the student's assigner shall judge the teacher's predictions instead of the student's
    assign_by_teacher: bool = False
    #: what a setting of None has come to with this pair
    resolved: Mapping[str, Any] = {}
    #: all settings that the method was built with; :func:`build_method` fills it in
    effective_settings: Mapping[str, Any] = {}

    def __init__(self, context: MethodContext) -> None:
        super().__init__()
        self.context = context

    def positives(self, step: DistillStep) -> Tensor:
        """Which predictions the student's assigner made positive, bool ``[N, P A]``."""
        return (step.labels >= 0) & (step.labels < self.context.num_classes)

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
    method = method_class(name)(context, **settings)
    method.effective_settings = {**known, **settings, **method.resolved}
    method.title = method.title or name
    if "assignment" in method.needs and not context.assigns_labels:
        raise MethodError(
            f"{name} needs positions that are labelled positive or background, but this head weighs positions "
            "(AutoAssign): take a head that assigns labels, or a method that does not need them"
        )
    return method


def aligners(context: MethodContext, *, kernel: int = 1, always: bool = False) -> nn.ModuleList:
    """A convolution a level from the student's neck width to the teacher's; nothing where widths agree already.

    Args:
        context: the pair.
        kernel: size of the convolutions, which keep the map's size.
        always: convolutions also where widths agree, as adapters.
    """
    widths = context.student_channels, context.teacher_channels
    needed = always or widths[0] != widths[1]
    return nn.ModuleList(
        nn.Conv2d(*widths, kernel, padding=kernel // 2) if needed else nn.Identity() for _ in range(context.num_levels)
    )
