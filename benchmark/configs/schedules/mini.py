"""Some hundred iterations on a CPU; `iterations` in params.yaml stretches the schedule."""

#: which size of detectors settings of methods are carried over to (benchmark/experiment/config.py)
scale = "mini"
train_cfg = dict(type="IterBasedTrainLoop", max_iters=400, val_interval=100)
val_cfg = dict(type="ValLoop")
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=2e-3, weight_decay=0.05, fused=True),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0, custom_keys=dict(backbone=dict(lr_mult=0.3))),
    clip_grad=dict(max_norm=10, norm_type=2),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.05, by_epoch=False, begin=0, end=40),
    dict(type="CosineAnnealingLR", eta_min_ratio=0.01, by_epoch=False, begin=40, end=400, T_max=360),
]
