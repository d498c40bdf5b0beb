"""The networks of the course: the paper's, its small twins, and their trained weights."""

from .classifier import ImageClassifier, Preparation, Sides, with_preprocessing
from .pretrained_networks import pretrained
from .response_norm import ResponseNorm
from .squeezenet import SqueezeNet
from .weights import conv_part, device, half, load, load_file, save, shipped, snapshots
from .zfnet import ALEXNET56, SCENES56, ZFNET, ZFNET56, Conv, Geometry, ZFNet, alexnet56, scenes56, zfnet56

__all__ = [
    "ALEXNET56", "SCENES56", "ZFNET", "ZFNET56", "Conv", "Geometry", "ImageClassifier", "Preparation", "ResponseNorm",
    "Sides", "SqueezeNet", "ZFNet", "alexnet56", "conv_part", "device", "half", "load", "load_file", "pretrained",
    "save", "scenes56", "shipped", "snapshots", "with_preprocessing", "zfnet56",
]  # fmt: skip
