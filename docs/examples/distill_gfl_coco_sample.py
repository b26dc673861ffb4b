"""Distil that detector from mmdet's GFL of R50 with PGD."""

_base_ = "gfl_r18_coco_sample.py"

custom_imports = dict(imports=["pgd.plugin"])
model = dict(
    _delete_=True,
    type="Distiller",
    data_preprocessor=_base_.model.data_preprocessor,
    student=_base_.model,
    teacher="mmdet::gfl/gfl_r50_fpn_1x_coco.py",
    teacher_checkpoint="{{$PGD_TEACHER:teacher.pth}}",
    method=dict(type="pgd", alpha=0.04, topk=30),
    inherit="head+neck",
)
