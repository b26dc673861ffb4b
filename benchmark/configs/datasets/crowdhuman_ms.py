"""CrowdHuman as PGD's teachers see it: the short side anywhere from 480 to 960, the long one up to 1400."""

_base_ = "crowdhuman.py"

_train = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="RandomResize", scale=[(1400, 480), (1400, 960)], keep_ratio=True),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackDetInputs"),
]

train_dataloader = dict(dataset=dict(pipeline=_train))
