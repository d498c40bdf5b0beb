"""Images in: photographs, folders, rendered scenes, Tiny ImageNet, Caltech-101, PASCAL; how they become numbers."""

from . import scenes
from .caltech_101 import caltech101
from .crops import centre_crop, stack, ten_crop
from .image_source import Skipped
from .imagenet_folders import imagenet_folder
from .images import folder, open_image
from .pascal_voc import pascal
from .photo_windows import SHOWN, Windows, windows
from .photographs import credit, photo, photo_names, photos
from .tiny_imagenet_200 import class_names, tiny_imagenet

__all__ = [
    "SHOWN", "Skipped", "Windows", "caltech101", "centre_crop", "class_names", "credit", "folder", "imagenet_folder",
    "open_image", "pascal", "photo", "photo_names", "photos", "scenes", "stack", "ten_crop", "tiny_imagenet", "windows",
]  # fmt: skip
