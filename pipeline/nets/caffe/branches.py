"""Layer types of other branches of Caffe, by the branch that brought them: for the words of a refusal alone."""

from __future__ import annotations

_TYPES = {
    "SSD": "AnnotatedData DetectionEvaluate DetectionOutput MultiBoxLoss Normalize Permute PriorBox VideoData",
    "SegNet": "Upsample BN DenseImageData",
    "Fast and Faster R-CNN": "ROIPooling SmoothL1Loss SmoothL1LossOHEM Proposal",
    "R-FCN": "PSROIPooling BoxAnnotatorOHEM",
    "DeepLab": "MatRead MatWrite SegAccuracy UniqueLabel DomainTransform DenseCRF AdaptiveBiasChannel",
    "PSPNet": "Interp",
    "ShuffleNet": "ShuffleChannel",
    "MobileNet": "ConvolutionDepthwise DepthwiseConvolution ReLU6",
    "SENet": "Axpy",
    "the center loss": "CenterLoss",
    "the focal loss": "FocalLoss SoftmaxWithFocalLoss",
    "FlowNet": "Correlation Resample FlowWarp DataAugmentation L1Loss",
    "YOLO": "Reorg Region RegionLoss Yolov3DetectionOutput YoloDetectionOutput",
    "NVIDIA": "DetectNetTransformation",
}
FROM_BRANCHES = 1000
"""The first number of a field that is of another branch (proto/caffe.proto)."""
MEANINGLESS = frozenset(("forward_type", "backward_type", "forward_math", "backward_math", "debug"))
"""Those that say in which precision a layer was trained: its weights are read whatever they hold."""
BRANCHES = {kind: branch for branch, kinds in _TYPES.items() for kind in kinds.split()}
