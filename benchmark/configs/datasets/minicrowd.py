"""minicrowd at its own size, 256 wide and 192 high. Paths come from the `prepare` stage."""

_base_ = "minicoco.py"

# no-op for images of that size, but it clips boxes to them and records the scale factor that `predict` asks for
_resize = dict(type="Resize", scale=(256, 192), keep_ratio=True)
_train = [
    dict(type="LoadImageOnce"),
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

train_dataloader = dict(dataset=dict(pipeline=_train))
val_dataloader = dict(dataset=dict(pipeline=_test))
val_evaluator = dict(type="CrowdHumanBoxes")
