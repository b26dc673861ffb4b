"""Some hundred photographs, which fit in memory, at 256 pixels of their longer side, from disk to detector alike."""

_scale = (256, 256)
_train = [
    dict(type="LoadImageOnce"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="Resize", scale=_scale, keep_ratio=True),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackDetInputs"),
]
_test = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=_scale, keep_ratio=True),
    dict(type="PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")),
]

train_dataloader = dict(
    batch_size=8,
    # images stay in memory: what is left is less work than passing it between processes
    num_workers=0,
    persistent_workers=False,
    collate_fn=dict(type="stacked"),
    sampler=dict(type="InfiniteSampler", shuffle=True),
    batch_sampler=None,
    dataset=dict(type="CocoDataset", filter_cfg=dict(filter_empty_gt=True, min_size=0), pipeline=_train),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=0,
    persistent_workers=False,
    drop_last=False,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(type="CocoDataset", test_mode=True, pipeline=_test),
)
val_evaluator = dict(type="CocoBoxes")
