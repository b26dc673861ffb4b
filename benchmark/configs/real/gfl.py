"""What the detectors of photographs share: GFL with two blocks a tower and anchors of four strides."""

_base_ = ["../detectors/gfl.py", "photos.py", "../schedules/mini.py"]

model = dict(
    bbox_head=dict(
        stacked_convs=2,
        # objects are larger relative to a 256-pixel image's strides than on COCO
        anchor_generator=dict(octave_base_scale=4),
    ),
)
