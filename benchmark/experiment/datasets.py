"""``datasets`` of ``params.yaml``: which data, where, and how strictly they are taken."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from annotated_types import Ge
from pydantic import ConfigDict, PlainValidator, Strict, StrictBool, StrictInt, StrictStr
from pydantic.dataclasses import dataclass
from pydantic_core import PydanticCustomError

#: What `root` holds, for the kinds of data sets that need one.
ROOTS = {
    "coco": "train2017/, val2017/ and annotations/",
    "crowdhuman": "annotation_train.odgt, annotation_val.odgt and Images/",
}
#: Where COCO's annotations and images lie below the root of a ``coco`` set.
LAYOUT = {name: (f"annotations/instances_{name}2017.json", f"{name}2017") for name in ("train", "val")}

# YAML says what type a value has: nothing is converted but whole numbers to floats, and lists to tuples.
Number = Annotated[float, Strict()]
Count = Annotated[StrictInt, Ge(1)]
STRICT = ConfigDict(extra="forbid")


def _image_size(value: Any) -> tuple[int, int] | None:
    """Both sides; one number is the longer one, whatever the other."""
    sides = value if isinstance(value, list | tuple) else [value, value]
    if value is None or (len(sides) == 2 and all(type(side) is int and side > 0 for side in sides)):
        return value and tuple(sides)
    told = "should be pixels: a positive whole number for the longer side, or a list of two, the most for either side"
    raise PydanticCustomError("image_size", told)


@dataclass(frozen=True, config=STRICT)
class Dataset:
    """Which data. ``root`` is the tree of a ``coco`` or ``crowdhuman`` set; the mini sets bring their own archives."""

    kind: Literal["minicoco", "midicoco", "coco", "minicrowd", "crowdhuman"]
    root: StrictStr | None = None
    #: of ``coco`` and ``crowdhuman``: what to do about broken annotations and images, ``refuse`` or ``skip`` them
    broken: Literal["refuse", "skip"] = "refuse"
    #: of ``crowdhuman``: whether the annotations must be the published ones
    verify: StrictBool = True
    #: use the first N training images only (smoke runs)
    train_images: Count | None = None
    val_images: Count | None = None
    #: bounds of small and of medium objects, pixels^2; None: COCO's, or the mini set's own
    areas: tuple[Number, Number] | None = None
    #: of ``coco``: annotation file and images' folder of ``train`` and ``val`` below the root; None: COCO's own
    layout: dict[StrictStr, tuple[StrictStr, StrictStr]] | None = None
    #: of ``coco`` and ``crowdhuman``: pixels that images are scaled to by every config, in training and testing alike:
    #: as large as they fit into the pair, whose order does not matter, or into a square; None: as the config says
    image_size: Annotated[tuple[int, int] | None, PlainValidator(_image_size)] = None

    @property
    def places(self) -> dict[str, tuple[str, str]]:
        """Annotation file and images' folder of both splits."""
        return LAYOUT | (self.layout or {})

    def __post_init__(self) -> None:
        if self.kind in ROOTS and not self.root:
            raise ValueError(f"root: give the folder that holds {ROOTS[self.kind]}")
        owners = {"broken": tuple(ROOTS), "verify": ("crowdhuman",), "layout": ("coco",), "image_size": tuple(ROOTS)}
        given = {"broken": self.broken != "refuse", "verify": not self.verify, "layout": self.layout is not None}
        given["image_size"] = self.image_size is not None
        for key, kinds in owners.items():
            if given[key] and self.kind not in kinds:
                which = " and ".join(f"'{kind}'" for kind in kinds)
                raise ValueError(f"{key}: only sets of kind {which} have this setting, not '{self.kind}'")
        if self.areas and not 0 < self.areas[0] < self.areas[1]:
            raise ValueError(
                f"areas: {list(self.areas)} should be two ascending bounds in pixels^2, of small and medium"
            )
        if unknown := set(self.layout or ()) - set(LAYOUT):
            raise ValueError(
                f"layout: '{min(unknown)}' is no split; write {{train: [annotations, images], val: [...]}}"
            )
