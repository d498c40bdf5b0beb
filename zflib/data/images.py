"""Anything that shows an image (a file, a PIL image, an array, a tensor) becomes one upright RGB image."""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

_ENDINGS = {".jpg", ".jpeg", ".png", ".webp", ".avif", ".heic", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm"}
_KINDS = "a path, a PIL image, a uint8 array (H,W,3) or a uint8 tensor (3,H,W)"


def open_image(source, *, name: str = "source") -> Image.Image:
    """An upright RGB image from a path, a PIL image, a uint8 array (H,W), (H,W,3), (H,W,4) or a uint8 tensor (3,H,W).

    The bytes of an image file are taken as well. Transparent pixels are laid on white, 16-bit greys are scaled to 8, of
    an animation the first frame is taken. A missing file raises FileNotFoundError, another type TypeError, what cannot
    be read ValueError; messages say `name`.
    """
    if isinstance(source, (str, os.PathLike)):
        return _open_file(os.path.expanduser(os.fsdecode(source)))
    if isinstance(source, bytes):
        with _readable(name):
            source = Image.open(io.BytesIO(source))
    if isinstance(source, Image.Image):
        return _upright(source, name)
    if isinstance(source, torch.Tensor):
        return _from_tensor(source, name)
    if isinstance(source, np.ndarray):
        return _from_array(source, name)
    raise TypeError(f"{name} must be {_KINDS}, got {type(source).__name__}")


def folder(path) -> list[Path]:
    """The image files in a folder of yours and below it, sorted; hidden ones are skipped, no image is a ValueError.

    Links are followed, each folder is read once; a link to no file is listed, and who opens it learns that.
    """
    root = Path(path).expanduser()
    if not root.exists():
        raise FileNotFoundError(f"path {str(path)!r} does not exist; give the folder that holds your images")
    if not root.is_dir():
        raise ValueError(f"path {str(path)!r} is a file, not a folder; open it with data.open_image")
    found = [file for file in _files(root) if file.suffix.lower() in _ENDINGS]
    if not found:
        raise ValueError(f"path {str(path)!r} holds no images; put files like .jpg, .png or .webp there")
    return sorted(found)


def _files(root: Path) -> Iterator[Path]:
    """The files in a folder, those behind links too, each folder once; a link to nothing counts as a file."""
    seen, folders, links = set(), [root], []
    while folders or links:
        folder = folders.pop() if folders else links.pop()
        if (real := os.path.realpath(folder)) in seen:
            continue
        seen.add(real)
        for entry in sorted(entry for entry in folder.iterdir() if not entry.name.startswith(".")):
            if not entry.is_dir():
                yield from [entry] if entry.is_file() or not entry.exists() else []
            else:
                (links if entry.is_symlink() else folders).append(entry)


def _open_file(path: str) -> Image.Image:
    if path.startswith(("http://", "https://")):
        raise ValueError(f"{path} is an address, not a file; download the image and give its path")
    if os.path.isdir(path):
        raise ValueError(f"{path} is a folder, not an image; data.folder({path!r}) lists its images")
    if not os.path.exists(path):
        fix = "the link leads nowhere" if os.path.islink(path) else "check the spelling, or give its full path"
        raise FileNotFoundError(f"there is no file {path!r}; {fix}")
    if not os.path.getsize(path):
        raise ValueError(f"{path} is empty, 0 bytes; fetch or save the image again")
    with open(path, "rb") as file:
        with _readable(path):
            image = Image.open(file)
        return _upright(image, path)


@contextmanager
def _readable(name: str) -> Iterator[None]:
    """ValueError with the file's name for whatever Pillow raises; for damaged bytes that is all sorts of things."""
    try:
        yield
    except UnidentifiedImageError:
        raise ValueError(f"{name} is not an image that Pillow can read; save it as PNG or JPEG") from None
    except Image.DecompressionBombError as error:
        raise ValueError(f"{name} has too many pixels ({error}); make it smaller first") from error
    except Exception as error:
        raise ValueError(f"{name} is damaged or cut short ({error}); fetch or save the image again") from error


def _upright(image: Image.Image, name: str) -> Image.Image:
    """RGB, turned as the camera's EXIF orientation says."""
    if 0 in image.size:
        raise ValueError(f"{name} must have pixels, got {image.width}x{image.height}; check how it was cropped")
    with suppress(Exception):  # cameras write all sorts of things into EXIF; Pillow complains of them once
        image.getexif()
    with _readable(name):
        image = ImageOps.exif_transpose(image)
    clear = image.info.get("transparency")
    if image.mode[0] in "IF":
        deep = np.asarray(image)
        image = Image.fromarray(_to_8_bits(deep, name)).convert("LA")
        image.putalpha(Image.fromarray(np.uint8(255) * (deep != clear)))  # one of the greys may mean transparent
    elif isinstance(clear, tuple) and max(clear) > 255:  # a colour of 16 bits, of which Pillow keeps 8
        image.info["transparency"] = tuple(value >> 8 for value in clear)
    with _readable(name):
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        image = image.convert("RGB")
    image.info.pop("exif", None)  # it is upright, and will be opened again
    return image


def _to_8_bits(values: np.ndarray, name: str) -> np.ndarray:
    """(H,W) uint8 from 16-bit greys, which Pillow's own `convert` would clip at 255."""
    if values.dtype.kind == "f" or values.min() < 0 or values.max() > 65535:
        got = f"{values.dtype} from {values.min()} to {values.max()}"
        raise ValueError(f"{name} must have greys of 8 or 16 bits, got {got}; scale them to 0..255 and save 8 bits")
    return np.round(values / 257).astype(np.uint8)


def _from_tensor(pixels: torch.Tensor, name: str) -> Image.Image:
    shape = tuple(pixels.shape)
    if len(shape) != 3 or shape[0] not in (1, 3):
        fix = "; turn it with .permute(2, 0, 1)" if len(shape) == 3 and shape[2] == 3 else ""
        raise ValueError(f"{name} must be a tensor (3,H,W) or (1,H,W), got shape {shape}{fix}")
    return _from_array(pixels.detach().permute(1, 2, 0).cpu().numpy(), name)


def _from_array(pixels: np.ndarray, name: str) -> Image.Image:
    shape = pixels.shape
    if pixels.dtype != np.uint8:
        small = pixels.dtype.kind == "f" and pixels.max(initial=0) <= 1.01  # rounding
        fix = "multiply by 255" if small else "bring its values to 0..255"
        raise TypeError(f"{name} must be uint8, 0 to 255, got {pixels.dtype}; {fix} and convert it to uint8")
    if len(shape) == 3 and shape[2] == 1:
        return _from_array(pixels[:, :, 0], name)
    if len(shape) != 2 and (len(shape) != 3 or shape[2] not in (3, 4)):
        fix = "; turn it with .transpose(1, 2, 0)" if len(shape) == 3 and shape[0] == 3 else ""
        raise ValueError(f"{name} must be an array (H,W,3), (H,W,4) or (H,W), got shape {shape}{fix}")
    return _upright(Image.fromarray(np.ascontiguousarray(pixels)), name)
