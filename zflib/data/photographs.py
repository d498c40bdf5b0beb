"""Real photographs that come inside scikit-image, scikit-learn and matplotlib: no download, no network."""

from importlib.util import find_spec
from pathlib import Path

from PIL import Image

from . import caltech_101

#: name -> (package, import name, file inside it, credit). The credits repeat what each package or file says of itself.
_PHOTOS = {
    "astronaut": ("scikit-image", "skimage", "data/astronaut.png",
        "Astronaut Eileen Collins, by NASA (Great Images database, https://flic.kr/p/r9qvLn); public domain"),
    "chelsea": ("scikit-image", "skimage", "data/chelsea.png",
        "Chelsea the cat, by Stéfan van der Walt; CC0"),
    "china": ("scikit-learn", "sklearn", "datasets/images/china.jpg",
        "china.jpg, by danielbuechele (https://www.flickr.com/photos/danielbuechele/6061409035/); "
        "CC BY 2.0 (https://creativecommons.org/licenses/by/2.0/)"),
    "coffee": ("scikit-image", "skimage", "data/coffee.png",
        "Coffee cup, by Rachel Michetti, courtesy of Pikolo Espresso Bar; CC0"),
    "flower": ("scikit-learn", "sklearn", "datasets/images/flower.jpg",
        "flower.jpg, by vultilion (https://www.flickr.com/photos/vultilion/6056698931/; scikit-learn's README links "
        "this page but names danielbuechele); CC BY 2.0 (https://creativecommons.org/licenses/by/2.0/)"),
    "grace_hopper": ("matplotlib", "matplotlib", "mpl-data/sample_data/grace_hopper.jpg",
        "Grace Hopper, by the US Navy (https://commons.wikimedia.org/wiki/File:Grace_Hopper.jpg); public domain"),
    "motorcycle": ("scikit-image", "skimage", "data/motorcycle_left.png",
        "Motorcycle (left image, a quarter of its size), by Nesic, Westling, Wang, Kitajima, Krathwohl and Scharstein: "
        "Middlebury stereo benchmark 2014 (https://vision.middlebury.edu/stereo/data/scenes2014/); no licence stated, "
        "do not redistribute"),
    "rocket": ("scikit-image", "skimage", "data/rocket.jpg",
        "Falcon 9 launches DSCOVR, by SpaceX (https://www.flickr.com/photos/spacexphotos/16511594820/); public domain"),
}  # fmt: skip


def photo_names() -> list[str]:
    """The names that `photo` opens here, sorted; a photograph whose package is not installed is left out."""
    return [name for name in _PHOTOS if _path(name) is not None]


def photo(name: str) -> Image.Image:
    """One RGB photograph, 300 to 750 pixels a side; ValueError: unknown name, FileNotFoundError: package missing."""
    package, _, file, _ = _entry(name)
    path = _path(name)
    if path is None:
        raise FileNotFoundError(
            f"photo {name!r} comes inside {package} ({file}), which is not installed here or no longer has it; "
            f"pip install {package}, or use {', '.join(photo_names()) or 'your own'}"
        )
    with Image.open(path) as image:
        return image.convert("RGB")


def photos() -> dict[str, Image.Image]:
    """Every photograph that is installed here: name -> RGB image."""
    return {name: photo(name) for name in photo_names()}


def credit(name: str) -> str:
    """Title, author, source and licence of a photograph and the package that it comes with, or of "caltech101"."""
    if name == "caltech101":
        return f"{caltech_101.CREDIT}."
    package, _, _, text = _entry(name)
    return f"{text}. Comes with {package}."


def _entry(name: str) -> tuple[str, str, str, str]:
    if name not in _PHOTOS:
        raise ValueError(f"name {name!r} is not a photograph; choose one of {', '.join(photo_names() or _PHOTOS)}")
    return _PHOTOS[name]


def _path(name: str) -> Path | None:
    _, module, file, _ = _PHOTOS[name]
    spec = find_spec(module)  # finds the folder without importing the package: fast, and never asks pooch to download
    paths = [Path(folder) / file for folder in (spec.submodule_search_locations or [])] if spec else []
    return next((path for path in paths if path.is_file()), None)
