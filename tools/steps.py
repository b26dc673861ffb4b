"""What measurements of speed share: detectors to distil, batches of random images, and what is said of times."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median, quantiles

import torch
from mmdet.structures import DetDataSample
from mmengine.runner import set_random_seed
from mmengine.structures import InstanceData
from torch import Tensor, nn

from benchmark.experiment.config import MINI, detector_config, model_dict
from benchmark.experiment.settings import Detector
from pgd.dense import DistillStep
from pgd.distiller import Distiller
from pgd.scaling import FULL, published_settings

CLASSES, OBJECTS = 80, 7
#: smallest and largest side of an object by the image's height
SMALLEST, LARGEST = 0.02, 0.7
#: what becomes of the last batch norm of a residual block, whose zero would leave nothing to compute
RESIDUAL = 0.2
LEARNING_RATE = 1e-6


@dataclass(frozen=True)
class Scale:
    """How large and how long."""

    #: config files of teacher and student, by the detector's name
    teacher: str
    student: str
    #: of the images, and padded
    image: tuple[int, int]
    padded: tuple[int, int]
    batches: tuple[int, ...]
    #: steps a turn, turns to warm up, turns at least and at most
    steps: int
    warm_up: int
    least: int
    most: int


PAPER = Scale("paper/{}_r101_3x.py", "paper/{}_r50_1x.py", (800, 1333), (800, 1344), (2, 8), 2, 2, 3, 12)
QUICK = Scale("mini/{}_r34.py", "mini/{}_r18.py", (96, 120), (96, 128), (1,), 1, 1, 2, 2)


def model_of(path: str, levels: int | None = None) -> dict:
    """The model of a config file for COCO's classes, without pretrained weights.

    Args:
        path: below benchmark/configs.
        levels: of a detector with square anchors, from stride 8 on; None: as the file says.
    """
    options = {"model.backbone.init_cfg": None}
    if levels is not None:
        strides = [8 * 2**i for i in range(levels)]
        options |= {"model.neck.num_outs": levels, "model.bbox_head.anchor_generator.strides": strides}
    cfg = detector_config(Detector(f"benchmark/configs/{path}", options=options))
    return {key: value for key, value in model_dict(cfg, CLASSES).items() if key != "data_preprocessor"}


def fill_residuals(model: nn.Module) -> None:
    """Make every residual block compute something other than zeros, which a GPU multiplies faster."""
    with torch.no_grad():
        for name, parameter in model.backbone.named_parameters():
            last = "bn3" if ".bn3." in name else "bn2"
            if name.endswith(f"{last}.weight") and not parameter.any():
                parameter.fill_(RESIDUAL)


class Subject:
    """One method on one detector: a student with its optimiser and a teacher, channels innermost as in trainings."""

    def __init__(self, method: str, detector: str, scale: Scale, device: str, levels: int | None = None) -> None:
        set_random_seed(0)
        settings = published_settings(method, detector, FULL if scale is PAPER else MINI)
        if "warmup" in settings:
            settings["warmup"] = 0
        if levels is not None and "level_weights" in settings:
            # as published for five, and so on
            settings["level_weights"] = [1 + i / 4 for i in range(levels)]
        teacher, student = (model_of(path.format(detector), levels) for path in (scale.teacher, scale.student))
        kind = {"type": method, **settings}
        self.model = Distiller(student=student, teacher=teacher, method=kind, channels_last=True)
        self.model.init_weights()
        self.model.teacher.init_weights()
        for part in (self.model.student, self.model.teacher):
            fill_residuals(part)
        self.model.to(device).train()
        trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.SGD(trained, lr=LEARNING_RATE, momentum=0.9)

    def held(self, teacher: bool = True) -> int:
        """Bytes of the weights and of the optimiser's state."""
        tensors = [*self.model.parameters(), *self.model.buffers()]
        if teacher:
            tensors += [*self.model.teacher.parameters(), *self.model.teacher.buffers()]
        tensors += [v for s in self.optimizer.state.values() for v in s.values() if isinstance(v, Tensor)]
        return sum(t.numel() * t.element_size() for t in tensors)


def batch_of(count: int, scale: Scale, device: str, objects: int = OBJECTS) -> tuple[Tensor, list[DetDataSample]]:
    """Random images, as normalised, and random boxes of log-uniform sides; the same every time.

    Images have their channels innermost, as what :class:`Subject` makes of them: parts that are asked by themselves,
    such as the teacher, then get what they get in a step.
    """
    g = torch.Generator().manual_seed(0)
    inputs = torch.zeros(count, 3, *scale.padded)
    height, width = scale.image
    inputs[..., :height, :width] = torch.randn(count, 3, height, width, generator=g)
    samples = []
    for _ in range(count):
        side = height * SMALLEST * (LARGEST / SMALLEST) ** torch.rand(objects, 2, generator=g)
        corner = torch.rand(objects, 2, generator=g) * (torch.tensor([width, height]) - side)
        meta = {"img_shape": scale.image, "ori_shape": scale.image, "scale_factor": (1.0, 1.0)}
        meta |= {"pad_shape": scale.padded, "batch_input_shape": scale.padded}
        data = DetDataSample(metainfo=meta)
        labels = torch.randint(CLASSES, (objects,), generator=g)
        data.gt_instances = InstanceData(bboxes=torch.cat((corner, corner + side), dim=1), labels=labels)
        samples.append(data.to(device))
    return inputs.to(device, memory_format=torch.channels_last), samples


def step_of(model: Distiller, inputs: Tensor, samples: list[DetDataSample]) -> DistillStep:
    """What the method is given in a step on this batch."""
    kept: list[DistillStep] = []
    handle = model.method.register_forward_pre_hook(lambda module, arguments: kept.append(arguments[0]))
    model.loss(inputs, samples)
    handle.remove()
    return kept[0]


def spread(times: list[float]) -> dict[str, float]:
    """Median, quartiles, least and count."""
    low, _, high = quantiles(times, n=4, method="inclusive")
    figures = {"median": median(times), "lower": low, "upper": high, "least": min(times)}
    return {**{key: round(value, 4) for key, value in figures.items()}, "turns": len(times)}
