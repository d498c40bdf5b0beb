"""Tiny ImageNet in small, in the layout of the official zip."""

from __future__ import annotations

import io
import zipfile

from PIL import Image

WNIDS = ["n02", "n01"]


def jpeg(grey: int, mode: str = "RGB", size: tuple[int, int] = (64, 64)) -> bytes:
    file = io.BytesIO()
    Image.new("L", size, grey).convert(mode).save(file, "JPEG", quality=95)
    return file.getvalue()


def tiny_files() -> dict[str, bytes]:
    """Two classes: three training images of each (one of them greyscale), three to validate, and what nothing reads."""
    files = {"wnids.txt": b"n02\nn01\n", "words.txt": b"n01\tgoldfish, Carassius auratus\nn02\tbullfrog\nn03\tbee\n"}
    for value, wnid in enumerate(WNIDS):
        files[f"train/{wnid}/{wnid}_boxes.txt"] = b"0\t0\t63\t63\n"
        for i in range(3):  # the real one has greyscale files too
            image = jpeg(40 * (3 * value + i + 1), "L" if i == 2 else "RGB")
            files[f"train/{wnid}/images/{wnid}_{i}.JPEG"] = image
    rows = [("val_0.JPEG", "n02"), ("val_1.JPEG", "n01"), ("val_2.JPEG", "n02")]
    for i, (name, _) in enumerate(rows):
        files[f"val/images/{name}"] = jpeg(10 + i)
    files["val/val_annotations.txt"] = "".join(f"{name}\t{wnid}\t0\t0\t63\t63\n" for name, wnid in rows).encode()
    files["test/images/test_0.JPEG"] = jpeg(99)
    return files


def zipped(files: dict[str, bytes]) -> bytes:
    """The bytes of a zip with the folder tiny-imagenet-200 at its head."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in files.items():
            archive.writestr(f"tiny-imagenet-200/{name}", content)
    return file.getvalue()
