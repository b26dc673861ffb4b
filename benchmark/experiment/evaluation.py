"""The mmengine config of an evaluation; apart from the trainings' own, which no change here shall touch."""

from __future__ import annotations

from pathlib import Path

from mmengine.config import Config

from benchmark.experiment.config import DatasetInfo, detector_config, model_dict, use_dataset
from benchmark.experiment.settings import Job


def evaluation_config(job: Job, data: DatasetInfo, detections: Path) -> Config:
    """The config that tests plain weights (no teacher, no method) on the whole validation set."""
    cfg = detector_config(job.detector, job.options)
    model_dict(cfg, len(data.classes))
    cfg.model.backbone.init_cfg = None
    use_dataset(cfg, data, monitor=False)
    cfg.val_evaluator.out_file = str(detections)
    return Config(
        {
            "model": cfg.model,
            "test_dataloader": cfg.val_dataloader,
            "test_evaluator": cfg.val_evaluator,
            "test_cfg": {"type": "TestLoop"},
            "default_scope": "mmdet",
            "work_dir": str(detections.parent / "log"),
            "log_level": "ERROR",
            "default_hooks": {"logger": None, "checkpoint": None},
            "custom_hooks": [{"type": "ProgressBar"}],
        }
    )
