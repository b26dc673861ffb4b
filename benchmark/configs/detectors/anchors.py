"""What ATSS, GFL and DDOD share beyond all detectors: one square anchor a position, group norm in the towers."""

_base_ = "dense.py"

model = dict(
    bbox_head=dict(
        norm_cfg=dict(type="GN", num_groups=32, requires_grad=True),
        anchor_generator=dict(
            type="AnchorGenerator",
            ratios=[1.0],
            octave_base_scale=8,
            scales_per_octave=1,
            strides=[8, 16, 32, 64, 128],
        ),
    ),
)
