"""CrowdHuman as PGD's students see it: 1400x800, two images a GPU. Paths come from the `prepare` stage.

Boxes of whole bodies reach beyond the images; `Resize` clips them. Images with nothing but ignore regions are kept.
"""

_base_ = "coco.py"

_train = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="Resize", scale=(1400, 800), keep_ratio=True),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackDetInputs"),
]
_test = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(1400, 800), keep_ratio=True),
    dict(type="PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")),
]

train_dataloader = dict(batch_size=2, dataset=dict(pipeline=_train))
val_dataloader = dict(dataset=dict(pipeline=_test))
val_evaluator = dict(type="CrowdHumanBoxes")
