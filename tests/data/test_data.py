"""The image room: photographs, files of every kind, stacks and crops."""

import os
import socket
import struct
import sys
import warnings
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from zflib import data

RNG = np.random.default_rng(0)
NAMES = ["astronaut", "chelsea", "china", "coffee", "flower", "grace_hopper", "motorcycle", "rocket"]


def noise(*shape):
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def save(path, image, **options):
    image.save(path, **options)
    return path


def pixels(image):
    assert image.mode == "RGB"
    return np.asarray(image)


def message(error, call, *arguments, **options):
    with pytest.raises(error) as caught:
        call(*arguments, **options)
    text = str(caught.value)
    assert type(caught.value) is error and "\n" not in text
    return text


# --- photographs


def test_photos_open_without_network(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    assert data.photo_names() == sorted(NAMES)
    loaded = set(sys.modules)
    images = data.photos()
    assert not {"skimage", "sklearn", "pooch"} & (set(sys.modules) - loaded)
    assert list(images) == NAMES and images["chelsea"].size == (451, 300) and images["rocket"].size == (640, 427)
    for image in images.values():
        assert all(300 <= side <= 750 for side in image.size)
        assert pixels(image).std() > 20
    assert pixels(images["astronaut"]).shape == (512, 512, 3)


def test_credits_name_author_licence_and_package():
    for name, words in {
        "astronaut": ("NASA", "public domain", "scikit-image"), "chelsea": ("CC0",), "coffee": ("Michetti", "CC0"),
        "china": ("danielbuechele", "CC BY 2.0", "scikit-learn"), "flower": ("vultilion", "CC BY 2.0"),
        "grace_hopper": ("US Navy", "public domain", "matplotlib"), "rocket": ("SpaceX", "public domain"),
        "motorcycle": ("Middlebury", "do not redistribute"),
    }.items():  # fmt: skip
        assert all(word in data.credit(name) for word in words), name


def test_unknown_and_missing_photos(monkeypatch):
    for call in (data.photo, data.credit):
        assert "'dog'" in message(ValueError, call, "dog") and "rocket" in message(ValueError, call, "dog")
    room = data.photographs
    found = room.find_spec
    monkeypatch.setattr(room, "find_spec", lambda name: None if name == "sklearn" else found(name))
    assert data.photo_names() == [name for name in NAMES if name not in ("china", "flower")]
    assert "pip install scikit-learn" in message(FileNotFoundError, data.photo, "china")
    assert "CC BY" in data.credit("china")
    monkeypatch.setitem(room._PHOTOS, "rocket", ("scikit-image", "skimage", "data/gone.jpg", "gone"))
    assert "rocket" not in data.photo_names()
    assert "scikit-image (data/gone.jpg)" in message(FileNotFoundError, data.photo, "rocket")


# --- open_image: what can be read


@pytest.mark.parametrize("ending", ["png", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path, orientation, ending):
    upright = noise(5, 7, 3)
    stored = {  # how a camera that was held this way wrote the upright picture
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1], 5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1), 7: upright[::-1, ::-1].transpose(1, 0, 2), 8: np.rot90(upright, -1),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / f"a.{ending}", Image.fromarray(np.ascontiguousarray(stored)), exif=exif)
    assert np.array_equal(pixels(data.open_image(path)), upright)
    with Image.open(path) as lazy:
        once = data.open_image(lazy)
    assert np.array_equal(pixels(data.open_image(once)), upright), "a second opening must not turn it again"


@pytest.mark.parametrize("ending", ["png", "webp", "jpg"])
def test_exif_that_is_garbage_spoils_no_image(tmp_path, ending):
    image, exact = Image.fromarray(noise(5, 7, 3)), {"lossless": True} if ending == "webp" else {}
    plain = save(tmp_path / f"plain.{ending}", image, **exact)
    odd = save(tmp_path / f"odd.{ending}", image, exif=b"Exif\0\0garbage", **exact)
    once = data.open_image(odd)
    assert np.array_equal(pixels(once), pixels(data.open_image(plain)))
    assert np.array_equal(pixels(data.open_image(once)), pixels(once))


def test_modes(tmp_path):
    grey, colour = noise(6, 9), noise(6, 9, 3)
    as_rgb = np.stack([grey] * 3, axis=2)
    bits = (grey > 127).astype(np.uint8) * 255
    palette = Image.fromarray(colour).quantize(16)
    cases = {
        "rgb.png": (Image.fromarray(colour), colour),
        "rgb.bmp": (Image.fromarray(colour), colour),
        "grey.png": (Image.fromarray(grey), as_rgb),
        "one_bit.png": (Image.fromarray(bits).convert("1"), np.stack([bits] * 3, axis=2)),
        "palette.png": (palette, np.asarray(palette.convert("RGB"))),
        "deep.png": (Image.fromarray(grey.astype(np.uint16) * 257), as_rgb),
        "deep.tif": (Image.fromarray(grey.astype(np.uint16) * 257), as_rgb),
    }
    for name, (image, expected) in cases.items():
        assert np.array_equal(pixels(data.open_image(save(tmp_path / name, image))), expected), name
        assert np.array_equal(pixels(data.open_image(image)), expected), name


def test_sixteen_bits_are_scaled_by_their_full_range(tmp_path):
    values = np.array([[0, 128, 129, 255, 256, 32896, 65278, 65535]], dtype=np.uint16)
    path = save(tmp_path / "a.png", Image.fromarray(values))
    with Image.open(path) as image:
        assert image.mode.startswith("I")
    assert pixels(data.open_image(path))[0, :, 0].tolist() == [0, 0, 1, 1, 1, 128, 254, 255]
    for deeper in (values.astype(np.int32) * 1000, values / np.float32(65535)):
        text = message(ValueError, data.open_image, save(tmp_path / "b.tif", Image.fromarray(deeper)))
        assert "b.tif must have greys of 8 or 16 bits" in text


def test_cmyk_jpeg(tmp_path):
    path = save(tmp_path / "a.jpg", Image.new("CMYK", (16, 16), (0, 255, 255, 0)), quality=95)
    red = pixels(data.open_image(path))[8, 8].astype(int)
    assert red[0] > 240 and red[1] < 15 and red[2] < 15


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_lies_on_white(tmp_path, mode):
    image = Image.new("RGBA", (3, 1), (200, 200, 200, 255))
    image.putpixel((1, 0), (0, 0, 0, 0))
    image.putpixel((2, 0), (100, 100, 100, 128))
    expected = [200, 255, 177]
    if mode == "P":  # one colour is declared transparent
        image = Image.fromarray(np.array([[200, 0, 50]], dtype=np.uint8)).convert("P")
        image.info["transparency"] = 0
        expected = [200, 255, 50]
    image = image.convert(mode)
    found = pixels(data.open_image(save(tmp_path / "a.png", image)))
    assert found.shape == (1, 3, 3) and np.abs(found[0, :, 0].astype(int) - expected).max() <= 1
    assert np.array_equal(pixels(data.open_image(image)), found)


def test_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    for name in ("a.gif", "a.webp", "a.png", "a.tif"):
        path = save(tmp_path / name, frames[0], save_all=True, append_images=frames[1:])
        found = pixels(data.open_image(path))[4, 4].astype(int)
        assert found[0] > 240 and found[2] < 15, name


def test_arrays_and_tensors():
    colour = noise(4, 5, 3)
    assert np.array_equal(pixels(data.open_image(colour)), colour)
    assert np.array_equal(pixels(data.open_image(colour[::-1, ::-1])), colour[::-1, ::-1])
    assert np.array_equal(pixels(data.open_image(colour[..., 0])), np.stack([colour[..., 0]] * 3, axis=2))
    opaque = np.concatenate([colour, np.full((4, 5, 1), 255, np.uint8)], axis=2)
    assert np.array_equal(pixels(data.open_image(opaque)), colour)
    assert np.array_equal(pixels(data.open_image(torch.tensor(colour).permute(2, 0, 1))), colour)


def test_the_source_never_changes_with_the_result():
    kept = noise(4, 5, 3)
    array, image, tensor = kept.copy(), Image.fromarray(kept.copy()), torch.tensor(kept.transpose(2, 0, 1))
    image.info["comment"] = "mine"
    for source in (array, image, tensor):
        data.open_image(source).paste((1, 2, 3), (0, 0, 5, 4))
    data.stack(tensor[None], 4).zero_()
    data.stack(array[:, :4], 4).zero_()
    assert np.array_equal(array, kept) and np.array_equal(np.asarray(image), kept)
    assert np.array_equal(tensor.permute(1, 2, 0), kept) and image.info == {"comment": "mine"}


def test_paths_are_str_or_path_and_home_is_expanded(tmp_path, monkeypatch):
    save(tmp_path / "a.png", Image.new("RGB", (2, 2), "red"))
    monkeypatch.setenv("HOME", str(tmp_path))
    for path in (tmp_path / "a.png", str(tmp_path / "a.png"), "~/a.png"):
        assert data.open_image(path).size == (2, 2)


# --- open_image: what cannot


def test_files_that_are_no_images(tmp_path):
    empty, text = tmp_path / "empty.png", tmp_path / "text.jpg"
    empty.touch()
    text.write_text("hello " * 100)
    assert "no.png" in message(FileNotFoundError, data.open_image, tmp_path / "no.png")
    assert "folder" in message(ValueError, data.open_image, tmp_path)
    assert "empty.png is empty, 0 bytes" in message(ValueError, data.open_image, empty)
    assert "text.jpg is not an image" in message(ValueError, data.open_image, text)
    assert "download" in message(ValueError, data.open_image, "https://example.org/a.png")
    assert "''" in message(FileNotFoundError, data.open_image, "")


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("ending", ["png", "jpg", "gif", "webp", "tif", "bmp"])
def test_truncated_files_are_named(tmp_path, ending):
    content = save(tmp_path / f"whole.{ending}", Image.fromarray(noise(64, 64, 3))).read_bytes()
    cut = tmp_path / f"cut.{ending}"
    for kept in (len(content) // 2, len(content) * 9 // 10, 40, 12, 1):
        cut.write_bytes(content[:kept])
        assert str(cut) in message(ValueError, data.open_image, cut)
    cut.write_bytes(content[: len(content) // 2])
    if ending in ("png", "jpg", "bmp"):
        with Image.open(cut) as lazy:
            assert "source is damaged" in message(ValueError, data.open_image, lazy)


def test_damaged_files_never_raise_anything_else(tmp_path):
    path = tmp_path / "a"
    for ending in ("png", "jpg", "gif", "tif"):
        content = bytearray(save(tmp_path / f"whole.{ending}", Image.fromarray(noise(16, 16, 3))).read_bytes())
        for _ in range(60):
            copy = bytearray(content)
            for at in RNG.integers(0, len(copy), 8):
                copy[at] = RNG.integers(0, 256)
            path.write_bytes(copy)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    assert data.open_image(path).mode == "RGB"
                except ValueError as error:
                    assert str(path) in str(error)


def test_too_many_pixels_are_refused(tmp_path, monkeypatch):
    path = save(tmp_path / "large.png", Image.new("L", (100, 100)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4000)
    assert "large.png has too many pixels" in message(ValueError, data.open_image, path)


def test_wrong_arrays():
    floats = RNG.random((4, 5, 3))
    text = message(TypeError, data.open_image, floats)
    assert "source must be uint8" in text and "float64" in text and "multiply by 255" in text
    assert "multiply by 255" in message(TypeError, data.open_image, torch.rand(3, 4, 5))
    assert "0..255" in message(TypeError, data.open_image, floats * 254 + 1)
    assert "int64" in message(TypeError, data.open_image, np.arange(300).reshape(10, 10, 3))
    assert ".transpose(1, 2, 0)" in message(ValueError, data.open_image, noise(3, 10, 10))
    assert ".permute(2, 0, 1)" in message(ValueError, data.open_image, torch.tensor(noise(10, 10, 3)))
    for shape in ((5,), (4, 4, 2), (1, 4, 4, 3)):
        assert str(shape) in message(ValueError, data.open_image, np.zeros(shape, np.uint8))
    for shape in ((5, 5), (2, 4, 4), (1, 3, 4, 4)):
        assert str(shape) in message(ValueError, data.open_image, torch.zeros(shape, dtype=torch.uint8))
    assert "must have pixels" in message(ValueError, data.open_image, np.zeros((0, 5, 3), np.uint8))
    assert "0x5" in message(ValueError, data.open_image, Image.new("RGB", (0, 5)))


@pytest.mark.parametrize("source", [None, 3, {"pixels": b"\x89PNG"}])
def test_wrong_types(source):
    text = message(TypeError, data.open_image, source)
    assert text.startswith("source must be a path") and type(source).__name__ in text


# --- folder


def test_folder_lists_images_only(tmp_path):
    others = ["sub/.hidden.png", ".cache/d.png", "notes.txt", "e.pdf"]
    for name in ["b.png", "a.JPG", "sub/c.webp", *others]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    found = [path.relative_to(tmp_path).as_posix() for path in data.folder(tmp_path)]
    assert found == ["a.JPG", "b.png", "sub/c.webp"]
    assert data.folder(str(tmp_path)) == data.folder(tmp_path)
    assert [path.name for path in data.folder(tmp_path / ".cache")] == ["d.png"], "hidden means hidden below the folder"


def test_folder_errors(tmp_path):
    (tmp_path / "notes.txt").touch()
    assert "holds no images" in message(ValueError, data.folder, tmp_path)
    assert "nowhere" in message(FileNotFoundError, data.folder, tmp_path / "nowhere")
    assert "is a file" in message(ValueError, data.folder, tmp_path / "notes.txt")


# --- stack and crops


def test_stack_passes_equal_size_through_bit_for_bit(tmp_path):
    images = noise(3, 8, 8, 3)
    expected = torch.tensor(images).permute(0, 3, 1, 2)
    paths = [save(tmp_path / f"{i}.png", Image.fromarray(image)) for i, image in enumerate(images)]
    opened = [Image.fromarray(image) for image in images]
    generator, values = (image for image in images), dict(enumerate(images)).values()
    for given in (images, expected, list(images), tuple(images), generator, values, paths, opened, list(expected)):
        found = data.stack(given, 8)
        assert found.dtype == torch.uint8 and found.is_contiguous() and torch.equal(found, expected)
    for one in (images[0], expected[0], paths[0], str(paths[0]), Image.fromarray(images[0])):
        assert torch.equal(data.stack(one, 8), expected[:1])


@pytest.mark.parametrize("shape", [(30, 50), (50, 30), (10, 33), (16, 31), (17, 16), (64, 64)])
def test_stack_resizes_smaller_side_and_crops_the_centre(shape):
    image = Image.fromarray(noise(*shape, 3))
    height, width = (round(side * 16 / min(shape)) for side in shape)
    expected = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
    top, left = (height - 16) // 2, (width - 16) // 2
    found = data.stack(image, 16)
    assert found.shape == (1, 3, 16, 16)
    assert np.array_equal(found[0].permute(1, 2, 0), expected[top : top + 16, left : left + 16])


def test_shrinking_is_antialiased():
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, ::2] = 255
    assert data.stack(stripes, 32).float().sub(127.5).abs().max() < 6, "single samples would give black or white"


def test_tiny_and_thin_images():
    assert (data.stack(np.full((1, 1, 3), 77, np.uint8), 256) == 77).all()
    assert data.stack(noise(1, 100, 3), 64).shape == (1, 3, 64, 64)


def test_stack_errors(tmp_path):
    assert "empty" in message(ValueError, data.stack, [], 64)
    assert "empty" in message(ValueError, data.stack, np.zeros((0, 8, 8, 3), np.uint8), 64)
    assert "images[1]" in message(TypeError, data.stack, [noise(4, 4, 3), None], 64)
    assert message(TypeError, data.stack, None, 64).startswith("images must be")
    assert ".values()" in message(TypeError, data.stack, {"a": noise(4, 4, 3)}, 64)
    assert ".transpose(1, 2, 0)" in message(ValueError, data.stack, noise(2, 3, 8, 8), 8)
    assert ".permute(2, 0, 1)" in message(ValueError, data.stack, torch.tensor(noise(2, 8, 8, 3)), 8)
    assert "multiply by 255" in message(TypeError, data.stack, torch.rand(2, 3, 8, 8), 8)
    assert "no.png" in message(FileNotFoundError, data.stack, [tmp_path / "no.png"], 8)
    for size in (0, 2.5, None):
        assert repr(size) in message(ValueError, data.stack, noise(4, 4, 3), size)
    assert data.stack(noise(4, 4, 3), np.int64(4)).shape == (1, 3, 4, 4)


def test_centre_crop():
    images = torch.tensor(noise(2, 3, 9, 12))
    assert torch.equal(data.centre_crop(images, 4), images[:, :, 2:6, 4:8])
    assert torch.equal(data.centre_crop(images, 9), images[:, :, :, 1:10])
    assert "(2, 3, 9, 12)" in message(ValueError, data.centre_crop, images, 10)


def test_ten_crop_against_slices():
    images = torch.tensor(noise(2, 3, 8, 8))
    crops = data.ten_crop(images, 6)
    corners = [(0, 0), (0, 2), (2, 0), (2, 2), (1, 1)]
    assert crops.shape == (2, 10, 3, 6, 6)
    for n in range(2):
        for i, (top, left) in enumerate(corners):
            crop = images[n, :, top : top + 6, left : left + 6]
            assert torch.equal(crops[n, i], crop)
            for column in range(6):
                assert torch.equal(crops[n, i + 5, :, :, column], crop[:, :, 5 - column])
    assert torch.equal(crops[:, 4], data.centre_crop(images, 6))
    message(ValueError, data.ten_crop, images, 9)


def test_folders_behind_links_are_read_once(tmp_path):
    def photo(path):
        path.parent.mkdir(exist_ok=True)
        return save(path, Image.new("RGB", (4, 4)))

    photo(tmp_path / "elsewhere" / "1.png")
    mine = photo(tmp_path / "mine" / "0.png").parent
    (mine / "linked").symlink_to(tmp_path / "elsewhere")
    (mine / "again").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(mine)  # a circle
    (mine / "gone.png").symlink_to("nowhere.png")
    (mine / "itself.jpg").symlink_to("itself.jpg")
    os.mkfifo(mine / "waits.png")
    found = data.folder(mine)
    assert [path.name for path in found] == ["0.png", "gone.png", "itself.jpg", "1.png"]
    assert "the link leads nowhere" in message(FileNotFoundError, data.open_image, found[1])


@pytest.mark.parametrize("kind, clear", [(0, (1234,)), (2, (1234, 1234, 1234))], ids=["grey", "colour"])
def test_one_value_of_16_bits_that_means_transparent(tmp_path, kind, clear):
    def chunk(name, content):
        code = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + code

    rows = b"".join(b"\0" + struct.pack(">H", value) * 2 * len(clear) for value in (30000, 1234))
    parts = (
        (b"IHDR", struct.pack(">IIBBBBB", 2, 2, 16, kind, 0, 0, 0)),
        (b"tRNS", struct.pack(f">{len(clear)}H", *clear)),
    )
    content = b"".join(chunk(*part) for part in (*parts, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")))
    (tmp_path / "deep.png").write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    assert pixels(data.open_image(tmp_path / "deep.png"))[:, 0, 0].tolist() == [117, 255]


def test_one_channel_is_grey():
    grey = noise(5, 6)
    for given in (grey, grey[..., None], torch.tensor(grey)[None], Image.fromarray(grey.astype(np.uint16) * 257)):
        assert np.array_equal(pixels(data.open_image(given)), np.repeat(grey[..., None], 3, 2))


def test_floats_a_hair_beyond_1():
    assert "multiply by 255" in message(TypeError, data.open_image, np.full((4, 5, 3), 1.0000001, np.float32))
