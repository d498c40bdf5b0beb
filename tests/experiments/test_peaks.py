"""`find_peaks` against brute force: ties, every kind of source, every batch size, several processes, killed runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from peaks_worker import LAYERS, SHARED, Items, as_lists, given, small_net, some_images
from PIL import Image
from torch import nn
from torch.utils.data import (
    ChainDataset,
    ConcatDataset,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    StackDataset,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
)

import zflib
from zflib.data import image_source
from zflib.experiments import peaks
from zflib.experiments.peaks import Found, find_peaks
from zflib.experiments.top_k import Peaks, suppress_overlaps

ROOT = Path(__file__).resolve().parents[2]
WORKER = Path(__file__).with_name("peaks_worker.py")


def brute_force(maps: torch.Tensor, k: int) -> list:
    """By Python's own sort; maps (N,C,h,w)."""
    values, images, positions = [], [], []
    for channel in range(maps.shape[1]):
        found = []
        for i, one in enumerate(maps[:, channel]):
            rows = one.tolist()
            top = max(map(max, rows))
            place = next((r, c) for r, row in enumerate(rows) for c, value in enumerate(row) if value == top)
            found.append((-top, i, place))
        found = sorted(found)[:k] + [(torch.inf, -1, (-1, -1))] * (k - len(found))
        values.append([-value for value, _, _ in found])
        images.append([i for _, i, _ in found])
        positions.append([list(place) for _, _, place in found])
    return [values, images, positions]


def same(some: Found, others: Found) -> bool:
    return list(some) == list(others) and all(as_lists(some[layer]) == as_lists(others[layer]) for layer in some)


# --- exact -----------------------------------------------------------------------------------------------------------


def whole_numbers(net: nn.Module) -> nn.Module:
    """Weights of -1, 0 and 1: sums without rounding, full of ties."""
    for p in net.parameters():
        p.data = torch.randint(-1, 2, p.shape).float()
    return net


@pytest.fixture(scope="module")
def ties() -> tuple[nn.Module, torch.Tensor, dict]:
    """A network, images, and the layers' maps, all of whole numbers."""
    net = whole_numbers(small_net())
    images = torch.randint(-1, 2, (110, 3, 10, 10)).float()
    maps = {layer: zflib.Deconvnet(net).activations(images, layer) for layer in LAYERS}
    return net, images, {layer: m if m.dim() == 4 else m[:, :, None, None] for layer, m in maps.items()}


@pytest.mark.parametrize("count, k, batch_size", [(110, 9, 64), (64, 1, 7), (33, 40, 200), (5, 9, 1)])
def test_equals_brute_force_among_ties(count, k, batch_size, ties):
    net, images, maps = ties
    found = find_peaks(net, images[:count], layers=LAYERS, k=k, batch_size=batch_size)
    for layer in LAYERS:
        assert as_lists(found[layer]) == brute_force(maps[layer][:count], k), layer
    assert found["3"].values.shape == (40, k) and found["3"].positions.shape == (40, k, 2)
    assert found.count == count and not found.skipped


def test_equal_images_come_in_their_order():
    found = find_peaks(small_net(), some_images(1).repeat(100, 1, 1, 1), layers="3")
    assert found["3"].images.tolist() == [list(range(9))] * 40


def test_layers_of_zfnet_are_after_their_relu():
    net = zflib.zfnet56(4).eval()
    images = torch.randn(3, 3, 56, 56)
    found, deconvnet = find_peaks(net, images, layers=net.layer_names, k=2), zflib.Deconvnet(net)
    for layer in ("conv1", "norm1", "conv4", "fc6", "fc8"):
        maps = deconvnet.activations(images, layer)
        expected = maps.amax((2, 3)) if maps.dim() == 4 else maps
        assert torch.allclose(found[layer].values, expected.T.topk(2).values, atol=1e-4, rtol=1e-4)
    assert float(found["conv3"].values.min()) >= 0 and not found["fc7"].positions.any()


@pytest.mark.parametrize("make, layers", [
    (torchvision.models.alexnet, ("features.0", "features.1", "features.3", "classifier.4")),
    (torchvision.models.squeezenet1_1, ("features.0", "features.3.expand3x3", "features.4")),
    (torchvision.models.resnet18, ("bn1", "layer1.0.bn2", "layer2", "fc")),
])  # fmt: skip
def test_agrees_with_the_deconvnet_where_relus_work_in_place(make, layers):
    torch.manual_seed(0)
    net, images = make().eval(), torch.randn(64, 3, 64, 64)
    found = find_peaks(net, images, layers=layers, k=3)
    for layer in layers:
        maps = zflib.Deconvnet(net).activations(images, layer)
        maps = maps if maps.dim() == 4 else maps[:, :, None, None]
        expected = maps.amax((2, 3)).T.topk(3)
        assert torch.equal(found[layer].values, expected.values)
        channels = torch.arange(maps.shape[1])[:, None].expand(-1, 3)
        rows, columns = found[layer].positions.unbind(-1)
        assert torch.equal(maps[found[layer].images, channels, rows, columns], expected.values)


def test_infinite_activations_are_ranked():
    class Far(nn.Module):
        def forward(self, images):
            return torch.where(images > 0, images, -torch.inf)

    images = -torch.ones(40, 1, 2, 2)
    images[35], images[37, 0, 1, 0] = 2.0, 1.0
    found = find_peaks(nn.Sequential(Far()), images, layers="0", k=4)["0"]
    assert found.values.tolist() == [[2.0, 1.0, -torch.inf, -torch.inf]] and found.images.tolist() == [[35, 37, 0, 1]]
    assert found.positions[0, :2].tolist() == [[0, 0], [1, 0]]


# --- sources and batch sizes -----------------------------------------------------------------------------------------


class Endless(IterableDataset):
    def __init__(self, images):
        self.images = images

    def __iter__(self):
        yield from self.images


class Counted(Endless):
    def __len__(self):
        return len(self.images)


def odd_pieces(images):
    sizes, first = [1, 7, 40, 2], 0
    while first < len(images):
        size = sizes[first % 4]
        yield images[first : first + size]
        first += size


def pairs_first(items):
    """A collate_fn that is not torch's."""
    return torch.stack([item[0] for item in items]), [item[1] for item in items]


def halves(x):
    return Items(x[:60]), Items(x[60:])


FLOATS = {
    "tensor": lambda x: x,
    "array": lambda x: x.numpy(),
    "another byte order": lambda x: x.numpy().astype(">f4"),
    "list": list,
    "data set": Items,
    "tensors with labels": lambda x: TensorDataset(x, torch.arange(len(x))),
    "concatenated data sets": lambda x: ConcatDataset(halves(x)),
    "subset": lambda x: Subset(Items(torch.cat([x + 1, x])), range(len(x), 2 * len(x))),
    "generator": lambda x: (image for image in x),
    "pairs": lambda x: ((image, 3) for image in x),
    "odd pieces": odd_pieces,
    "iterable data set": Endless,
    "iterable data set with a length": Counted,
    "chained data sets": lambda x: ChainDataset([Endless(x[:60]), Counted(x[60:])]),
    "lists of images": lambda x: (list(piece) for piece in x.split(9)),
    "loader of 7": lambda x: DataLoader(Items(x), batch_size=7),
    "loader of 32": lambda x: DataLoader(TensorDataset(x, torch.arange(len(x))), batch_size=32),
    "loader of an iterable": lambda x: DataLoader(Endless(x), batch_size=100),
    "loader that drops the last of an iterable": lambda x: DataLoader(Endless(x), batch_size=40, drop_last=True),
    "loader whose two workers read all of an iterable": lambda x: DataLoader(Endless(x), batch_size=40, num_workers=2),
    "stacked by name": lambda x: StackDataset(image=x, label=torch.arange(len(x))),
    "loader of dictionaries": lambda x: DataLoader(StackDataset(image=x), batch_size=40, shuffle=True),
    "loader of single images": lambda x: DataLoader(Items(x), batch_size=None),
    "chained": lambda x: ChainDataset([Endless(x[:9]), Endless(x[9:])]),
    "joined": lambda x: ConcatDataset([Items(x[:9]), Subset(Items(x), range(9, len(x)))]),
    "shared among processes": lambda x: DataLoader(Items(x), sampler=DistributedSampler(Items(x), 2, 1)),
    "loader that shuffles": lambda x: DataLoader(Items(x), batch_size=7, shuffle=True),
    "loader that drops the last": lambda x: DataLoader(Items(x), batch_size=40, drop_last=True),
    "loader with its own collate": lambda x: DataLoader(Items(x), 7, shuffle=True, collate_fn=pairs_first),
}


@pytest.mark.parametrize("name", FLOATS)
def test_every_source_is_brute_force_among_ties(name, ties):
    net, images, maps = ties
    found = find_peaks(net, FLOATS[name](images), layers=LAYERS)
    assert found.count == 110
    assert {layer: as_lists(found[layer]) for layer in LAYERS} == {l: brute_force(maps[l], 9) for l in LAYERS}


@pytest.mark.parametrize("name", ["data set", "odd pieces", "loader of 7"])
def test_a_source_cut_in_any_way_is_the_same_to_the_bit(name):
    net, images = small_net(), some_images()
    assert same(find_peaks(net, FLOATS[name](images), layers=LAYERS), find_peaks(net, images, layers=LAYERS))


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 3, 64, 64), dtype=np.uint8)


@pytest.fixture(scope="module")
def zfnet():
    torch.manual_seed(0)
    return zflib.zfnet56(3).eval()


@pytest.fixture(scope="module")
def expected(zfnet, pixels) -> Found:
    return find_peaks(zfnet, zfnet.preprocess(torch.from_numpy(pixels)), layers=("conv1", "conv3"))


def write(pixels: np.ndarray, folder: Path) -> Path:
    for i, one in enumerate(pixels):
        (folder / f"{i % 2}").mkdir(exist_ok=True)
        Image.fromarray(one.transpose(1, 2, 0)).save(folder / f"{i % 2}" / f"{i:03}.png")
    return folder


PIXELS = {
    "array": lambda x, _: x,
    "tensor": lambda x, _: torch.from_numpy(x),
    "rows, columns, colours": lambda x, _: x.transpose(0, 2, 3, 1),
    "memory map": lambda x, folder: saved(x, folder / "pixels.npy"),
    "pictures": lambda x, _: [Image.fromarray(one.transpose(1, 2, 0)) for one in x],
    "lists of pictures": lambda x, _: iter([[Image.fromarray(one.transpose(1, 2, 0)) for one in x]]),
    "paths": lambda x, folder: sorted(write(x, folder).rglob("*.png"), key=lambda path: path.name),
    "path iterator": lambda x, folder: iter(sorted(write(x, folder).rglob("*.png"), key=lambda path: path.name)),
    "loader": lambda x, _: DataLoader(torch.from_numpy(x), batch_size=7),
    "crops": lambda x, _: x[:, :, 4:60, 4:60],
    "loader of pictures": lambda x, _: DataLoader([Image.fromarray(one.transpose(1, 2, 0)) for one in x], shuffle=True),
}


def saved(x: np.ndarray, path: Path) -> np.memmap:
    np.save(path, x)
    return np.load(path, mmap_mode="r")


@pytest.mark.parametrize("name", PIXELS)
def test_every_source_of_pixels_is_the_same_to_the_bit(name, zfnet, pixels, expected, tmp_path):
    found = find_peaks(zfnet, PIXELS[name](pixels, tmp_path), layers=("conv1", "conv3"))
    assert same(found, expected)
    if "path" in name:
        winners = {i for peaks in found.values() for i in peaks.images.unique().tolist()}
        assert {i: Path(path).name for i, path in found.names.items()} == {i: f"{i:03}.png" for i in winners}


def test_a_folder_names_what_it_cannot_read(zfnet, pixels, tmp_path):
    write(pixels, tmp_path)
    whole = find_peaks(zfnet, tmp_path, layers="conv3")
    order = [*range(0, 40, 2), *range(1, 40, 2)]
    assert [Path(whole.names[i]).stem for i in sorted(whole.names)] == [f"{order[i]:03}" for i in sorted(whole.names)]
    gone = [int(i) for i in whole["conv3"].images[:, 0].unique()[:2]]
    for i in gone:
        path = Path(whole.names[i])
        path.write_bytes(path.read_bytes()[:200])
    with pytest.warns(UserWarning, match="2 of 40 images could not be read and were skipped: .*png .*damaged or cut"):
        found = find_peaks(zfnet, tmp_path, layers="conv3")
    assert [s.image for s in found.skipped] == gone and found.count == 40
    assert [s.name for s in found.skipped] == [whole.names[i] for i in gone]
    wider = find_peaks_without(zfnet, pixels[order], gone)
    assert as_lists(found["conv3"]) == as_lists(wider["conv3"])


def find_peaks_without(net, pixels, gone):
    """The same search over a data set whose broken items raise."""
    items = Items(net.preprocess(torch.from_numpy(pixels)), broken=gone)
    with pytest.warns(UserWarning, match="skipped"):
        return find_peaks(net, items, layers="conv3")


@pytest.mark.parametrize("error", [OSError, ValueError, SyntaxError])
def test_items_that_cannot_be_read_keep_their_number(error):
    net, images, broken = small_net(), some_images(), (0, 31, 32, 90, 109)
    with pytest.warns(UserWarning, match=r"5 of 110 images .*image 0 \(\w+: item 0 is gone\); .*; and 2 more"):
        found = find_peaks(net, Items(images, broken, error), layers=LAYERS)
    assert [s.image for s in found.skipped] == list(broken) and found.skipped[3].name == "image 90"
    everything = find_peaks(net, images, layers=LAYERS, k=110)
    for layer in LAYERS:
        for channel, winners in enumerate(everything[layer].images.tolist()):
            assert found[layer].images[channel].tolist() == [i for i in winners if i not in broken][:9]


def test_a_mistake_in_a_data_set_is_not_hidden():
    with pytest.raises(KeyError):
        find_peaks(small_net(), Items(some_images(), (3,), KeyError), layers="0")


def test_another_network_prepares_pictures_as_it_is_told(pixels):
    preprocess = torchvision.transforms.Compose([torchvision.transforms.Resize(10), torchvision.transforms.ToTensor()])
    images = torch.stack([preprocess(Image.fromarray(one.transpose(1, 2, 0))) for one in pixels])
    expected = find_peaks(small_net(), images, layers=LAYERS)
    for source in (pixels, iter(pixels), torch.from_numpy(pixels)):
        assert same(find_peaks(small_net(), source, layers=LAYERS, preprocess=preprocess), expected)


def test_memory_does_not_grow_with_the_images(monkeypatch):
    class Path(str):
        count = 0

        def __init__(self, _):
            Path.count += 1

        def __del__(self):
            Path.count -= 1

    def stream(count):
        for i in range(count):
            alive.append(Path.count)
            yield Path(f"{i}.png")

    image, alive = some_images(1)[0], []
    monkeypatch.setattr(image_source.Reader, "__call__", lambda self, path: image * (1 + int(path[:-4])))
    found = find_peaks(small_net(), stream(1000), layers="0", k=2)
    assert len(alive) == 1000 and max(alive) < 200 and len(found.names) <= 12
    assert {999, 998} <= set(found.names)  # every image is stronger than those before it


# --- worker processes ------------------------------------------------------------------------------------------------


@pytest.fixture
def at_once(monkeypatch):
    """Worker processes, even if reading is quick."""
    monkeypatch.setattr(image_source, "SOON", 0.0)
    monkeypatch.setattr(image_source, "WORKERS", 1)
    monkeypatch.setattr(image_source.os, "cpu_count", lambda: 2)


class Where(Items):
    """Notes in a file which process has read an item."""

    def __init__(self, images, file, **settings):
        super().__init__(images, **settings)
        self.file = file

    def __getitem__(self, i):
        with self.file.open("a") as file:
            file.write(f"{os.getpid()}\n")
        return super().__getitem__(i)


def test_workers_read_what_this_process_would(at_once, tmp_path):
    net, images, file = small_net(), some_images(), tmp_path / "who"
    with pytest.warns(UserWarning, match="2 of 110 images could not be read"):
        found = find_peaks(net, Where(images, file, broken=(3, 100)), layers=LAYERS, batch_size=16)
    readers = file.read_text().split()
    assert readers[:16] == [str(os.getpid())] * 16 and str(os.getpid()) not in readers[16:] and len(readers) == 110
    with pytest.warns(UserWarning, match="2 of 110"):
        assert same(found, find_peaks(net, iter_with_gaps(images, (3, 100)), layers=LAYERS, batch_size=16))
    assert [skipped.image for skipped in found.skipped] == [3, 100]


def iter_with_gaps(images, gaps):
    return ("nowhere.png" if i in gaps else image for i, image in enumerate(images))


def test_an_error_in_a_worker_is_one_sentence(at_once):
    uneven = [*some_images(20), torch.zeros(3, 9, 10)]
    with pytest.raises(ValueError, match=r"^images: image 20 must be \(3, 10, 10\) as those before it") as caught:
        find_peaks(small_net(), Items(uneven), layers="0", batch_size=16)
    assert "\n" not in str(caught.value)
    with pytest.raises(KeyError):
        find_peaks(small_net(), Items(some_images(), (30,), KeyError), layers="0", batch_size=16)


def workers(images, preprocess=None, shown=()):
    return image_source._workers(image_source.open_source(small_net(), images, preprocess), shown)


def test_in_memory_or_with_a_gpu_there_are_no_workers(at_once):
    elsewhere = image_source.Batch(0, 2, torch.zeros(2, 3, 4, 4, device="meta"))
    assert workers(Items(some_images(3))) == 1 and workers(some_images(3)) == 0
    assert workers(Items(some_images(3)), shown=[elsewhere]) == 0


def test_a_process_that_is_not_forked_reads_only_what_it_can_get(at_once, monkeypatch):
    monkeypatch.setattr(image_source.multiprocessing, "get_start_method", lambda: "spawn")
    main, images = sys.modules["__main__"], Items(some_images(3))
    monkeypatch.setattr(main, "__file__", "script.py", raising=False)
    assert workers(images) == 0  # the script would run once more
    monkeypatch.delattr(main, "__file__")
    assert workers(images) == 1
    assert workers(images, preprocess=lambda picture: picture) == 0  # cannot be pickled
    assert workers(images, preprocess=zflib.zfnet56(3).preprocess) == 0  # carries a network
    monkeypatch.setattr(Items, "__module__", "__main__")  # as if from a notebook's cell
    monkeypatch.setattr(main, "Items", Items, raising=False)
    assert workers(images) == 0


# --- non-maximum suppression -----------------------------------------------------------------------------------------


def overlap(one: list[float], other: list[float]) -> float:
    sides = [min(one[i + 2], other[i + 2]) - max(one[i], other[i]) for i in (0, 1)]
    common = max(sides[0], 0) * max(sides[1], 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return common / (sum(areas) - common)


def test_suppression_is_brute_force_also_beyond_the_border_and_for_large_numbers():
    generator = torch.Generator().manual_seed(0)
    corners = torch.randint(-20, 20, (6, 48, 2), generator=generator)
    boxes = torch.cat([corners, corners + torch.randint(5, 20, (6, 48, 2), generator=generator)], dim=-1)
    owners = torch.randint(0, 3, (6, 48), generator=generator) + 1_000_000
    boxes[:, 0], boxes[:, 1] = (
        torch.tensor([40, 40, 60, 60]),
        torch.tensor([-21, -21, -1, -1]),
    )  # as far apart as owners
    owners[:, 0], owners[:, 1] = 1_000_000, 1_000_001  # may be moved
    values = torch.randn(6, 48, generator=generator).sort(dim=1, descending=True).values
    peaks = Peaks(values, torch.arange(48).expand(6, -1), torch.zeros(6, 48, 2, dtype=torch.int64))
    found = suppress_overlaps(peaks, owners, boxes, k=48)
    for channel in range(6):
        kept: list[int] = []
        for i, box in enumerate(boxes[channel].tolist()):
            rivals = [boxes[channel, j].tolist() for j in kept if owners[channel, i] == owners[channel, j]]
            if all(overlap(box, rival) <= 0.2 for rival in rivals):
                kept.append(i)
        assert found.images[channel].tolist() == (kept + [-1] * 48)[:48]


# --- the network is left as it was -----------------------------------------------------------------------------------


def hooks(net: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in net.modules())


def test_hooks_modes_and_buffers_are_as_they_were():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5)).train()
    net[2].eval()
    before, images = {key: value.clone() for key, value in net.state_dict().items()}, some_images(40)
    kept = images.clone()
    find_peaks(net, images, layers=("0", "2"))
    assert [m.training for m in net.modules()] == [True, True, True, False] and hooks(net) == 0
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert torch.equal(images, kept) and all(p.grad is None and p.requires_grad for p in net.parameters())


def test_hooks_and_modes_are_restored_after_an_error():
    net = small_net().train()
    for images in (Items(some_images(), (50,), KeyError), some_images(40, side=3)):
        with pytest.raises((KeyError, ValueError)):
            find_peaks(net, images, layers=LAYERS)
        assert hooks(net) == 0 and all(m.training for m in net.modules())


def test_images_that_a_network_changes_in_place_stay_as_they_are():
    images = some_images(32)
    kept = images.clone()
    found = find_peaks(nn.Sequential(nn.ReLU(inplace=True)), images, layers="0")
    assert torch.equal(images, kept) and float(found["0"].values.min()) > 0


def test_nothing_runs_beyond_the_last_layer():
    net, ran = small_net(), []
    net[5].register_forward_hook(lambda *_: ran.append(1))
    find_peaks(net, some_images(4), layers=("0", "3"))
    assert not ran


# --- what is refused -------------------------------------------------------------------------------------------------


class Twice(nn.Module):
    def forward(self, images):
        return images, images


REFUSED = {
    "layer 'conv9' is not in this network": lambda: find_peaks(zflib.zfnet56(3), some_images(), layers=["conv9"]),
    r"layer \['0'\] is not in this network": lambda: find_peaks(small_net(), some_images(), layers=[["0"]]),
    "layers must be at least one": lambda: find_peaks(small_net(), some_images(), layers=[]),
    "k must be a whole number of images, from 1 to 1,000,000, got 0": lambda: find_peaks(
        small_net(), some_images(), layers="0", k=0
    ),
    "batch_size must be a whole number of images, at least 1, got 0": lambda: find_peaks(
        small_net(), some_images(), layers="0", batch_size=0
    ),
    "this DataLoader chooses images by a RandomSampler": lambda: find_peaks(
        small_net(), DataLoader(images := Items(some_images()), sampler=RandomSampler(images, True)), layers="0"
    ),
    "this DataLoader chooses images by a list": lambda: find_peaks(
        small_net(), DataLoader(Items(some_images()), batch_sampler=[[3, 5], [4]]), layers="0"
    ),
    "this DataLoader chooses images by a SubsetRandomSampler; give its data set, or": lambda: find_peaks(
        small_net(), DataLoader(Items(some_images()), sampler=SubsetRandomSampler([3, 5])), layers="0"
    ),
    "images: an iterator of a DataLoader counts in the order in which the loader reads": lambda: find_peaks(
        small_net(), iter(DataLoader(Items(some_images()), 7, shuffle=True)), layers="0"
    ),
    "images: an iterator of a DataLoader counts in the order": lambda: find_peaks(
        small_net(), iter(DataLoader(Endless(some_images()), 7, num_workers=1)), layers="0"
    ),
    "images: the data set gives 110 and says it has 150; mend its length": lambda: find_peaks(
        small_net(), Claims(some_images(), 150), layers="0"
    ),
    "images: the data set gives 110 and says it has 60; mend its length": lambda: find_peaks(
        small_net(), DataLoader(Claims(some_images(), 60), 7), layers="0"
    ),
    "images: no image 110 of 111; mend the data set's length": lambda: find_peaks(
        small_net(), Named(some_images()), layers="0"
    ),
    r"images must be a plain tensor \(N,3,H,W\), got a sparse_coo one; use images.to_dense": lambda: find_peaks(
        small_net(), some_images().to_sparse(), layers="0"
    ),
    r"images must be a plain tensor \(N,3,H,W\), got a nested one": lambda: find_peaks(
        small_net(), torch.nested.nested_tensor(list(some_images())), layers="0"
    ),
    "images must be a plain tensor .* got a sparse_csr one": lambda: find_peaks(
        small_net(), [some_images()[0, 0].to_sparse_csr()], layers="0"
    ),
    "images must hold floats .* got torch.quint8; use images.dequantize": lambda: find_peaks(
        small_net(), [torch.quantize_per_tensor(some_images()[0], 0.1, 0, torch.quint8)], layers="0"
    ),
    "images must hold real numbers, got torch.complex64": lambda: find_peaks(
        small_net(), some_images() + 1j, layers="0"
    ),
    "images hold no numbers: they are on the device 'meta'": lambda: find_peaks(
        small_net(), some_images().to("meta"), layers="0"
    ),
    "images must hold floats or uint8 pixels, got object; use images.astype": lambda: find_peaks(
        small_net(), some_images().numpy().astype(object), layers="0"
    ),
    "images: no image 110 of 150; mend the data set's length": lambda: find_peaks(
        small_net(), TooLong(some_images()), layers="0"
    ),
    "net: module '1' normalises over the batch": lambda: find_peaks(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)), some_images(), layers="1"
    ),
    "save must be a file's path .*, got '5'": lambda: find_peaks(small_net(), some_images(), layers="0", save=5),
    "net must be a torch network": lambda: find_peaks("zfnet56", some_images(), layers="0"),
    r"images must be \(N,3,H,W\), got shape \(3, 10, 10\); pass images\[None\]": lambda: find_peaks(
        small_net(), some_images()[0], layers="0"
    ),
    "images must be a tensor or array .* got int": lambda: find_peaks(small_net(), 3, layers="0"),
    "images must be a tensor or array .* got dict": lambda: find_peaks(small_net(), {}, layers="0"),
    "does not exist; give the folder": lambda: find_peaks(small_net(), "nowhere", layers="0"),
    "images: empty; give at least one": lambda: find_peaks(small_net(), [], layers="0"),
    "images: none of the 3 could be read, first OSError: item 0": lambda: find_peaks(
        small_net(), Items(some_images(3), range(3)), layers="0"
    ),
    "preprocess is missing: this network does not say": lambda: find_peaks(
        small_net(), torch.zeros(2, 3, 9, 9, dtype=torch.uint8), layers="0"
    ),
    r"preprocess must give a float tensor \(3,H,W\), got .*Image": lambda: find_peaks(
        small_net(), [Image.new("RGB", (9, 9))], layers="0", preprocess=lambda picture: picture
    ),
    "preprocess must be a function": lambda: find_peaks(small_net(), some_images(), layers="0", preprocess=3),
    r"images: image 1 must be \(3, 10, 10\) as those before it, got \(3, 9, 10\)": lambda: find_peaks(
        small_net(), [torch.zeros(3, 10, 10), torch.zeros(3, 9, 10)], layers="0"
    ),
    "images: image 1 holds torch.uint8, those before it torch.float32": lambda: find_peaks(
        zflib.zfnet56(3), [torch.zeros(3, 56, 56), Image.new("RGB", (56, 56))], layers="conv1"
    ),
    "images: image 40 holds NaN or infinite pixels": lambda: find_peaks(small_net(), with_nan(40), layers="0"),
    "layer '0' gives NaN for image 0": lambda: find_peaks(broken_net(), some_images(), layers="0"),
    "layer '0' gives tuple; peaks are found in maps": lambda: find_peaks(
        nn.Sequential(Twice()), some_images(), layers="0"
    ),
    r"images of shape \(64, 3, 3, 3\) do not fit": lambda: find_peaks(small_net(), some_images(side=3), layers=LAYERS),
    "layer '0.1' took no part": lambda: find_peaks(Unused(), some_images(), layers=["0.1"]),
    "save must be a file's path in a folder that exists": lambda: find_peaks(
        small_net(), some_images(), layers="0", save="/nowhere/peaks.pt"
    ),
}


class Claims(Endless):
    """Says that it has another number of images."""

    def __init__(self, images, length):
        super().__init__(images)
        self.length = length

    def __len__(self):
        return self.length


class Named:
    """Images by number in a dictionary, one of which is missing."""

    def __init__(self, images):
        self.images = dict(enumerate(images))

    def __len__(self):
        return len(self.images) + 1

    def __getitem__(self, number):
        return self.images[number]


class TooLong(Items):
    def __len__(self):
        return 150


def with_nan(number):
    images = some_images()
    images[number, 1, 2, 3] = torch.nan
    return images


def broken_net():
    net = small_net()
    net[0].bias.data[2] = torch.nan
    return net


class Unused(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU()))

    def forward(self, images):
        return self[0][0](images)


@pytest.mark.parametrize("message", REFUSED)
def test_what_is_refused(message):
    with pytest.raises((TypeError, ValueError, FileNotFoundError), match=message) as caught:
        REFUSED[message]()
    assert "\n" not in str(caught.value)


# --- saved files -----------------------------------------------------------------------------------------------------


class Stop(Exception):
    pass


class Watched(Items):
    """Counts what is read, and stops at one item."""

    def __init__(self, images, end=None):
        super().__init__(images)
        self.end, self.read = end, []

    def __getitem__(self, i):
        if i == self.end:
            raise Stop
        self.read.append(i)
        return super().__getitem__(i)


@pytest.fixture
def often(monkeypatch):
    monkeypatch.setattr(peaks, "SAVE_EVERY", 0.0)


@pytest.mark.parametrize("kind", ["data set", "iterator"])
def test_a_stopped_run_continues_where_it_was(kind, often, tmp_path):
    net, images, path = small_net(), some_images(200), tmp_path / "peaks.pt"
    make = {"data set": lambda items: items, "iterator": lambda items: (items[i] for i in range(200))}[kind]
    with pytest.raises(Stop):
        find_peaks(net, make(Watched(images, end=151)), layers=LAYERS, save=path)
    rest = Watched(images)
    found = find_peaks(net, make(rest), layers=LAYERS, save=path)
    assert same(found, find_peaks(net, images, layers=LAYERS)) and found.count == 200
    looked = image_source.SAMPLES if kind == "data set" else 1  # at images by which it knows them again
    assert min(rest.read[looked:]) == (128 if kind == "data set" else 1)
    again = Watched(images)
    assert same(find_peaks(net, make(again), layers=LAYERS, save=path), found) and len(again.read) == looked
    assert [p.name for p in tmp_path.iterdir()] == ["peaks.pt"]


def test_skipped_images_and_names_outlive_a_stop(often, tmp_path, zfnet, pixels):
    paths = sorted(write(pixels, tmp_path).rglob("*.png"), key=lambda path: path.name)
    paths[3].write_bytes(b"no image")

    def stream(end):
        for i, path in enumerate(paths):
            if i == end:
                raise Stop
            yield path

    save = tmp_path / "peaks.pt"
    with pytest.raises(Stop):
        find_peaks(zfnet, stream(35), layers="conv1", save=save)
    for _ in range(2):  # the second time from the finished file
        with pytest.warns(UserWarning, match="1 of 40 images .*003.png"):
            found = find_peaks(zfnet, stream(None), layers="conv1", save=save)
        assert [s.image for s in found.skipped] == [3]
        assert all(found.names[i] == str(paths[i]) for i in found["conv1"].images.unique().tolist())


CHANGES = {
    "weights": lambda net, images, path: find_peaks(small_net(5), images, layers="0", save=path),
    "layers": lambda net, images, path: find_peaks(net, images, layers="3", save=path),
    "k": lambda net, images, path: find_peaks(net, images, layers="0", k=8, save=path),
    "batch_size": lambda net, images, path: find_peaks(net, images, layers="0", batch_size=32, save=path),
    "images": lambda net, images, path: find_peaks(net, images[:-1], layers="0", save=path),
}


@pytest.mark.parametrize("what", CHANGES)
def test_the_file_of_another_run_is_refused(what, tmp_path):
    net, images, path = small_net(), some_images(), tmp_path / "peaks.pt"
    find_peaks(net, images, layers="0", save=path)
    with pytest.raises(ValueError, match=f"save: .*peaks.pt belongs to a run with other {what}; remove it"):
        CHANGES[what](net, images, path)


def changed(images: torch.Tensor, number: int) -> torch.Tensor:
    images = images.clone()
    images[number, 0, 0, 0] += 1
    return images


SAME_NUMBER = {
    "image 0": lambda: [some_images(), changed(some_images(), 0)],
    "image 109": lambda: [some_images(), changed(some_images(), 109)],
    "an image of few": lambda: [some_images(10), changed(some_images(10), 7)],
    "all": lambda: [some_images(), some_images(seed=2)],
    "one of a data set": lambda: [Items(some_images()), Items(changed(some_images(), 109))],
    "an iterator's first": lambda: [iter(some_images()), iter(changed(some_images(), 0))],
    "a loader's last": lambda: [DataLoader(Items(some_images()), 7), DataLoader(Items(changed(some_images(), 109)), 7)],
    "not readable": lambda: [Items(some_images()), Items(some_images(), broken=(0,))],
}


@pytest.mark.parametrize("what", SAME_NUMBER)
def test_other_images_of_the_same_number_are_refused(what, tmp_path):
    path, (some, others) = tmp_path / "peaks.pt", SAME_NUMBER[what]()
    find_peaks(small_net(), some, layers="0", save=path)
    with pytest.raises(ValueError, match="belongs to a run with other images"):
        find_peaks(small_net(), others, layers="0", save=path)


def test_another_preprocess_is_refused(pixels, tmp_path):
    half, third = ((lambda picture, by=by: torch.from_numpy(np.array(picture)).permute(2, 0, 1) / by) for by in (2, 3))
    path = tmp_path / "peaks.pt"
    for _ in range(2):
        find_peaks(nn.Sequential(nn.MaxPool2d(2)), pixels, layers="0", preprocess=half, save=path)
    with pytest.raises(ValueError, match="belongs to a run with other images"):
        find_peaks(nn.Sequential(nn.MaxPool2d(2)), pixels, layers="0", preprocess=third, save=path)


def test_a_damaged_file_is_refused(tmp_path):
    path = tmp_path / "peaks.pt"
    path.write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(ValueError, match=r"peaks.pt is no file of find_peaks, or damaged; remove it"):
        find_peaks(small_net(), some_images(), layers="0", save=path)


def test_an_iterator_that_is_shorter_the_second_time_is_refused(often, tmp_path):
    net, images, path = small_net(), some_images(), tmp_path / "peaks.pt"
    with pytest.raises(Stop):
        find_peaks(net, (Watched(images, 100)[i] for i in range(110)), layers="0", save=path)
    with pytest.raises(ValueError, match="images ended after 40, the saved run had read 64"):
        find_peaks(net, iter(images[:40]), layers="0", save=path)


# --- other processes -------------------------------------------------------------------------------------------------


def start(*arguments) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.Popen([sys.executable, WORKER, *map(str, arguments)], env=environment)


def test_a_killed_run_continues_to_the_same_result(tmp_path):
    path, net, images = tmp_path / "peaks.pt", small_net(), some_images(400)
    process, deadline = start("slow", path), time.monotonic() + 120
    try:
        while time.monotonic() < deadline and not path.exists():
            time.sleep(0.01)
        time.sleep(1.0)  # into the middle of it
    finally:
        process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL and path.exists()
    (tmp_path / ".peaks.pt.x1y2.part").write_bytes(b"killed while it wrote")
    rest = Watched(images)
    assert same(find_peaks(net, rest, layers=LAYERS, save=path), find_peaks(net, images, layers=LAYERS))
    assert 0 < len(rest.read) - image_source.SAMPLES < 400 and [p.name for p in tmp_path.iterdir()] == ["peaks.pt"]


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """(folder, results of both processes)."""
    folder = tmp_path_factory.mktemp("two")
    processes = [start(number, folder) for number in range(2)]
    try:
        assert [process.wait(timeout=180) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
    return folder, [torch.load(folder / f"result{number}.pt", weights_only=True) for number in range(2)]


@pytest.mark.nightly
@pytest.mark.filterwarnings("ignore:.*could not be read")
@pytest.mark.parametrize("source", SHARED[:3])
def test_two_processes_find_what_one_does(source, shared):
    folder, results = shared
    alone = find_peaks(small_net(), given(source), layers=LAYERS)
    for result in results:
        assert result[source]["count"] == alone.count
        assert result[source]["skipped"] == [s.image for s in alone.skipped]
        assert result[source]["peaks"] == {layer: as_lists(alone[layer]) for layer in LAYERS}
    assert not list(folder.glob(f"{source}.pt.rank*")) and not list(folder.glob(".*"))
    assert same(find_peaks(small_net(), given(source), layers=LAYERS, save=folder / f"{source}.pt"), alone)


@pytest.mark.nightly
def test_an_error_in_one_process_ends_both(shared):
    assert shared[1][1]["mistake"].startswith("KeyError: 'item 70 is gone'")
    assert shared[1][0]["mistake"].startswith("RuntimeError: another process failed (KeyError: 'item 70 is gone')")
