"""COCO 2017 as mmdet's multi-scale GFL sees it: the short side anywhere from 480 to 800, the long one up to 1333."""

_base_ = "coco.py"

_train = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="RandomResize", scale=[(1333, 480), (1333, 800)], keep_ratio=True),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackDetInputs"),
]

train_dataloader = dict(dataset=dict(pipeline=_train))
