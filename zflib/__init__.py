"""zflib: "Visualizing and Understanding Convolutional Networks" rebuilt from its parts."""

from . import data, deconv, models, peaks, train
from .deconv import Deconvnet
from .models import ZFNet, load, zfnet56
from .peaks import receptive_field

__version__ = "0.1.0"
__all__ = ["Deconvnet", "ZFNet", "data", "deconv", "load", "models", "peaks", "receptive_field", "train", "zfnet56"]
