"""RTMDet's heads inherit from ATSSHead and have little in common with it."""

from __future__ import annotations

from mmdet.models.dense_heads import RTMDetHead

from pgd.dense import refuse

refuse(RTMDetHead, "its towers are one a level and it has no third branch; no reader yet")
