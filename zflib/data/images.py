"""Anything that shows an image (a file, a PIL image, an array, a tensor) becomes one upright RGB image."""

from __future__ import annotations

import os
import threading
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

# EPS is a program that Ghostscript would run; the others are no still images or need somebody else's reader.
_REFUSED = {"EPS", "WMF", "MPEG", "BUFR", "GRIB", "HDF5"}
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip
_KINDS = "a path, a PIL image, a uint8 array (H,W,3) or a uint8 tensor (3,H,W)"
_opening = threading.Lock()


def open_image(source, *, name: str = "source") -> Image.Image:
    """An upright RGB image from a path, a PIL image, a uint8 array (H,W), (H,W,3), (H,W,4) or a uint8 tensor (3,H,W).

    Transparent pixels are laid on white, 16 bits are scaled to 8, of an animation the first frame is taken. A missing
    file raises FileNotFoundError, another type TypeError, what cannot be read ValueError; messages call it `name`.
    """
    if isinstance(source, (str, os.PathLike)):
        return _open_file(os.path.expanduser(os.fsdecode(source)))
    if isinstance(source, Image.Image):
        return _decode(source, name)
    if isinstance(source, torch.Tensor):
        return _from_tensor(source, name)
    if isinstance(source, np.ndarray):
        return _from_array(source, name)
    raise TypeError(f"{name} must be {_KINDS}, got {type(source).__name__}")


def folder(path, *, recursive: bool = True) -> list[Path]:
    """The image files in a folder of yours and below it, sorted; hidden ones are skipped, no image is a ValueError."""
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"path must be a folder's path, got {type(path).__name__}")
    root = Path(os.path.expanduser(os.fsdecode(path)))
    if not root.exists():
        raise FileNotFoundError(f"path {str(path)!r} does not exist; give the folder that holds your images")
    if not root.is_dir():
        raise ValueError(f"path {str(path)!r} is a file, not a folder; open it with data.open_image")
    formats = set(_formats())
    endings = {end for end, format in Image.registered_extensions().items() if format in formats}
    found = sorted(p for p in (root.rglob("*") if recursive else root.glob("*")) if p.suffix.lower() in endings)
    found = [p for p in found if not any(part.startswith(".") for part in p.relative_to(root).parts) and p.is_file()]
    if not found:
        raise ValueError(f"path {str(path)!r} holds no images; put files like .jpg, .png or .webp there")
    return found


def _formats() -> list[str]:
    Image.init()
    return [format for format in Image.ID if format not in _REFUSED]


def _open_file(path: str) -> Image.Image:
    _check_file(path)
    try:
        with open(path, "rb") as file:
            return _decode(_read_header(file, path), path)
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror or error}); check its permissions") from error


def _check_file(path: str) -> None:
    if path.startswith(("http://", "https://")):
        raise ValueError(f"{path} is an address, not a file; download the image and give its path")
    if os.path.isdir(path):
        raise ValueError(f"{path} is a folder, not an image; data.folder({path!r}) lists its images")
    if not os.path.exists(path):
        raise FileNotFoundError(f"there is no file {path!r}; check the spelling, or give its full path")
    if not os.path.isfile(path):
        raise ValueError(f"{path} is not a regular file; give the path of an image file")
    if os.path.getsize(path) == 0:
        raise ValueError(f"{path} is empty (0 bytes); fetch or save the image again")


def _read_header(file, path: str) -> Image.Image:
    """Format and size, no pixels yet; too many declared pixels raise here, before anything is decoded."""
    formats = _formats()
    # Pillow only warns between one and two times its limit. The lock keeps threads from undoing each other's filter.
    with _opening, warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            return Image.open(file, formats=formats)
        except Exception as error:
            raise _unreadable(path, error) from error


def _unreadable(name: str, error: Exception) -> ValueError:
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return ValueError(f"{name} is refused before decoding: {str(error).split(',')[0]}; make it smaller first")
    if isinstance(error, UnidentifiedImageError):
        return ValueError(f"{name} is not an image that Pillow can read; save it as PNG or JPEG")
    return ValueError(f"{name} is damaged or cut short ({error}); fetch or save the image again")


def _decode(image: Image.Image, name: str) -> Image.Image:
    if 0 in image.size:
        raise ValueError(f"{name} must have pixels, got {image.width}x{image.height}; check how it was cropped")
    try:
        image.load()
    except Exception as error:  # the readers of forty formats raise all sorts of things for damaged bytes
        raise _unreadable(name, error) from error
    turn = _UPRIGHT.get(_orientation(image))
    rgb = _to_rgb(image, name)
    rgb = rgb if turn is None else rgb.transpose(turn)
    rgb.info = {}  # or the EXIF orientation would turn it again the next time it is opened
    return rgb


def _orientation(image: Image.Image) -> int | None:
    """The EXIF orientation 1..8; unlike ImageOps.exif_transpose it survives a camera's malformed EXIF block."""
    try:
        return image.getexif().get(0x0112)
    except Exception:
        return None


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        image = Image.fromarray(_to_8_bits(np.asarray(image), image.mode, name))
    try:
        if image.has_transparency_data:
            image = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
            return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
        return image.copy() if image.mode == "RGB" else image.convert("RGB")
    except ValueError:
        raise ValueError(f"{name} has colours of mode {image.mode}; save it as 8-bit RGB") from None


def _to_8_bits(values: np.ndarray, mode: str, name: str) -> np.ndarray:
    """(H,W) uint8 from deeper greys, scaled by their full range; Pillow's own `convert` would clip them at 255."""
    low, high = values.min(), values.max()
    tops = {"I": (255, 65535), "F": (1, 255, 65535)}.get(mode, (65535,))  # "I" and "F" do not say what their white is
    top = next((top for top in tops if low >= 0 and high <= top), None)
    if top is None:
        raise ValueError(f"{name} has grey values from {low} to {high}; scale them to 0..255 and save it as 8 bits")
    return np.round(values * (255.0 / top)).astype(np.uint8)


def _from_tensor(pixels: torch.Tensor, name: str) -> Image.Image:
    shape = tuple(pixels.shape)
    check_bytes(pixels, name)
    if len(shape) != 3 or shape[0] != 3:
        fix = "; turn it with .permute(2, 0, 1)" if len(shape) == 3 and shape[2] == 3 else ""
        raise ValueError(f"{name} must be a tensor (3,H,W), got shape {shape}{fix}")
    return _from_array(pixels.permute(1, 2, 0).cpu().numpy(), name)


def _from_array(pixels: np.ndarray, name: str) -> Image.Image:
    shape = pixels.shape
    check_bytes(pixels, name)
    if len(shape) != 2 and (len(shape) != 3 or shape[2] not in (3, 4)):
        fix = "; turn it with .transpose(1, 2, 0)" if len(shape) == 3 and shape[0] == 3 else ""
        raise ValueError(f"{name} must be an array (H,W,3), (H,W,4) or (H,W), got shape {shape}{fix}")
    if 0 in shape:
        raise ValueError(f"{name} must have pixels, got {shape[1]}x{shape[0]}; check how it was cropped")
    return _decode(Image.fromarray(np.ascontiguousarray(pixels)), name)


def check_bytes(pixels: np.ndarray | torch.Tensor, name: str) -> None:
    """TypeError that says how to convert them unless the array or tensor `pixels` holds uint8."""
    dtype, cast = str(pixels.dtype).removeprefix("torch."), ".astype('uint8')"
    if dtype == "uint8":
        return
    if isinstance(pixels, torch.Tensor):
        pixels, cast = pixels.detach().cpu().double().numpy(), ".to(torch.uint8)"
    fix = "give pixels from 0 to 255"
    if pixels.dtype.kind in "buif" and np.isfinite(pixels).any():
        low, high = pixels[np.isfinite(pixels)].min(), pixels[np.isfinite(pixels)].max()
        fix = f"scale it to 0..255 first, it goes from {low:.4g} to {high:.4g}"
        if low >= 0 and high <= 1:
            fix = f"its values lie within 0..1, so multiply by 255: (255 * image){cast}"
        elif low >= 0 and high <= 255:
            fix = f"convert it with image{cast}"
    raise TypeError(f"{name} must be uint8, 0 to 255, got {dtype}; {fix}")
