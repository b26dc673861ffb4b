"""Many settings at once on a head whose last convolution is deformable, which takes batches of some sizes only."""

from __future__ import annotations

import pytest
import torch
from mmengine.config import ConfigDict
from support.detectors import QUIET, SIZE, detector, images, sample, stir

from benchmark.probe.dropping import Dropper

pytestmark = QUIET


@pytest.mark.slow
@torch.no_grad()
def test_any_number_of_settings(monkeypatch):
    model = detector("vfnet").eval()
    stir(model, 3)
    model.bbox_head.test_cfg = ConfigDict(model.bbox_head.test_cfg)
    dropper = Dropper(model)
    data = sample([], [])
    monkeypatch.setattr(dropper, "preprocess", lambda batch, training: {"inputs": images(1), "data_samples": [data]})
    view, metas = dropper.look({})
    masks = torch.rand(45, len(view.grid.centers), generator=torch.Generator().manual_seed(0)) < 0.3
    found = dropper.detect("features", masks, view.grid, 0, metas[0])
    assert len(found) == 45
    assert metas[0]["img_shape"] == SIZE
    for i in (0, 31, 32, 44):
        (alone,) = dropper.detect("features", masks[i : i + 1], view.grid, 0, metas[0])
        torch.testing.assert_close(alone, found[i], rtol=1e-4, atol=1e-3)
