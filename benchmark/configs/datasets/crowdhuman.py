"""CrowdHuman as PGD's students see it: 1400x800, two images a GPU. Paths come from the `prepare` stage.

Boxes of whole bodies reach beyond the images; `Resize` clips them. Images with nothing but ignore regions are kept.
"""

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

train_dataloader = dict(
    batch_size=2,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    batch_sampler=dict(type="AspectRatioBatchSampler"),
    dataset=dict(type="CocoDataset", filter_cfg=dict(filter_empty_gt=True, min_size=32), pipeline=_train),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(type="CocoDataset", test_mode=True, pipeline=_test),
)
val_evaluator = dict(type="CrowdHumanBoxes")
