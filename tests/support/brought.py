"""A detector that somebody brings to the stage `key_regions`: config, weights, annotations, images."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import init_default_scope

from pgd.checkpoint import export
from pgd.evaluation.coco import CocoBoxes
from support.detectors import CLASSES, detector, model_config

NAMES = [f"class {k}" for k in range(CLASSES)]
FIGURES = ["AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large", "AR100"]
#: images are enlarged by a half
CONFIG = """
model = {model!r}
model["data_preprocessor"] = dict(type="DetDataPreprocessor", mean=[120.0] * 3, std=[60.0] * 3, pad_size_divisor=32)
test_dataloader = dict(
    dataset=dict(
        type="CocoDataset",
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="Resize", scale=(192, 144), keep_ratio=True),
            dict(type="LoadAnnotations", with_bbox=True),
            dict(type="PackDetInputs"),
        ],
    )
)
"""


def predicted(config: Path, model, files: dict[int, Path]) -> dict[int, object]:
    """What mmdet's own test pipeline and ``predict`` find, image by image."""
    cfg = Config.fromfile(config)
    init_default_scope("mmdet")
    whole = MODELS.build(cfg.model).eval()
    whole.load_state_dict(model.state_dict())
    pipeline, found = Compose(cfg.test_dataloader.dataset.pipeline), {}
    with torch.no_grad():
        for image_id, path in files.items():
            data = pseudo_collate([pipeline({"img_path": str(path), "img_id": image_id, "instances": []})])
            found[image_id] = whole.test_step(data)[0]
    return found


def plain_figures(annotations: Path, names: list[str], found: dict[int, object]) -> dict:
    """Figures by the metric of the project."""
    metric = CocoBoxes(str(annotations))
    metric.dataset_meta = {"classes": names}
    metric.process({}, [sample.to_dict() for sample in found.values()])
    return metric.evaluate(len(found))


def bring(root: Path) -> SimpleNamespace:
    """Someone's detector of random weights, on images whose objects are some of what it finds there, and a crowd."""
    rng = np.random.default_rng(0)
    (root / "images").mkdir()
    model = detector("gfl").eval()
    config = root / "theirs.py"
    config.write_text(CONFIG.format(model=model_config("gfl")))
    files = {}
    for image_id in (4, 2, 9):
        files[image_id] = root / "images" / f"{image_id}.png"
        noise = rng.integers(0, 255, (12, 16, 3), dtype=np.uint8)
        assert cv2.imwrite(str(files[image_id]), cv2.resize(noise, (128, 96), interpolation=cv2.INTER_CUBIC))
    found = predicted(config, model, files)
    annotations = []
    for image_id, sample in found.items():
        best = sample.pred_instances
        wide = (best.bboxes[:, 2:] - best.bboxes[:, :2]).amin(dim=1) > 12
        rows = zip(best.bboxes[wide][:5].tolist(), best.labels[wide][:5].tolist(), strict=True)
        for k, (box, label) in enumerate(rows):
            xywh = [box[0] + 1, box[1] + 1, box[2] - box[0], box[3] - box[1]]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": 10 + label,
                    "bbox": xywh,
                    "area": xywh[2] * xywh[3],
                    "iscrowd": int(k == 4),
                }
            )
    content = {
        "images": [{"id": i, "file_name": path.name, "height": 96, "width": 128} for i, path in files.items()],
        "categories": [{"id": 10 + k, "name": name} for k, name in enumerate(NAMES)],
        "annotations": annotations,
    }
    (root / "truth.json").write_text(json.dumps(content))
    export(model, root / "theirs.pth", NAMES)
    plain = plain_figures(root / "truth.json", NAMES, found)
    return SimpleNamespace(root=root, config=config, content=content, model=model, plain=plain)


def arguments(brought: SimpleNamespace, **changes: object) -> list[str]:
    """What the command is given: these files but for ``changes``, without those that are None."""
    files = {
        "config": brought.config,
        "checkpoint": brought.root / "theirs.pth",
        "annotations": brought.root / "truth.json",
        "images": brought.root / "images",
        **changes,
    }
    return [part for key, value in files.items() if value is not None for part in (f"--{key}", str(value))]
