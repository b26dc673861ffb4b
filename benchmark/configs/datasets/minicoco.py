"""minicoco at its own size. Paths and class names come from the `prepare` stage (work/dataset/dataset.json)."""

_train = [
    dict(type="LoadImageOnce"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackDetInputs"),
]
_test = [
    dict(type="LoadImageFromFile"),
    # no-op at the images' own size, but it records the scale factor that `predict` asks for
    dict(type="Resize", scale=(160, 160), keep_ratio=True),
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
    batch_size=25,
    num_workers=0,
    persistent_workers=False,
    drop_last=False,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(type="CocoDataset", test_mode=True, pipeline=_test),
)
val_evaluator = dict(type="CocoBoxes")
