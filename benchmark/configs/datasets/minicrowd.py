"""minicrowd at its own size, 256 wide and 192 high. Paths come from the `prepare` stage."""

# no-op for images of that size, but it clips boxes to them and records the scale factor that `predict` asks for
_resize = dict(type="Resize", scale=(256, 192), keep_ratio=True)
_train = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True),
    _resize,
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackDetInputs"),
]
_test = [
    dict(type="LoadImageFromFile"),
    _resize,
    dict(type="PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")),
]

train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    batch_sampler=None,
    dataset=dict(type="CocoDataset", filter_cfg=dict(filter_empty_gt=True, min_size=0), pipeline=_train),
)
val_dataloader = dict(
    batch_size=25,
    num_workers=1,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(type="CocoDataset", test_mode=True, pipeline=_test),
)
val_evaluator = dict(type="CrowdHumanBoxes")
