"""The deconvnet: unpool, rectify, transposed filter, and whole networks against autograd."""

import random
import sys
import warnings
from collections import Counter

import oracle
import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import zflib
from zflib.deconv import rectify, transposed_filter, unpool
from zflib.models.response_norm import ResponseNorm

tv = torchvision.models


def he(net):
    """He's start, so that signals survive a deep network."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(module.weight)
            if module.bias is not None:
                nn.init.normal_(module.bias, std=0.1)
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d) and module.running_mean is not None:
            for values in (module.running_mean, module.bias):
                if values is not None:
                    nn.init.normal_(values, std=0.2)
            for values in (module.running_var, module.weight):
                if values is not None:
                    nn.init.uniform_(values, 0.5, 1.5)
    return net


def strong(activations):
    """A channel per image: the one with the strongest activation."""
    flat = activations.flatten(2).amax(-1) if activations.dim() == 4 else activations
    return flat.argmax(dim=1)


def agree(net, layer, images, rules=oracle.RULES, tolerance=1e-5):
    """Projections of every rule equal the oracle's, at the strongest and at a drawn position."""
    for rule in rules:
        d = zflib.Deconvnet(net, rule=rule)
        maps = d.activations(images, layer)
        channels = strong(maps)
        expected = oracle.project(net, images, layer, channels.tolist(), rule=rule)
        oracle.close(d.project(images, layer, channels), expected, tolerance)
        if maps.dim() == 4:
            alive = [(m[c] == m[c].max()).nonzero()[-1].tolist() for m, c in zip(maps, channels)]
            expected = oracle.project(net, images, layer, channels.tolist(), positions=alive, rule=rule)
            oracle.close(d.project(images, layer, channels, positions=alive), expected, tolerance)


# --- unpool ---------------------------------------------------------------------------------------------------------


def unpool_by_loops(pooled, switches, size, overlap):
    maps = torch.zeros(*pooled.shape[:2], size[0] * size[1], dtype=pooled.dtype)
    for n in range(pooled.shape[0]):
        for c in range(pooled.shape[1]):
            won = set()
            for value, place in zip(pooled[n, c].flatten().tolist(), switches[n, c].flatten().tolist()):
                old = maps[n, c, place].item()
                maps[n, c, place] = {
                    "sum": old + value,
                    "max": max(old, value) if place in won else value,
                    "last": value,
                }[overlap]
                won.add(place)
    return maps.view(*pooled.shape[:2], *size)


@pytest.mark.parametrize("overlap, expected", [("sum", 10.0), ("max", 4.0), ("last", 4.0)])
def test_centre_peak_wins_all_four_windows(overlap, expected):
    maps = torch.zeros(1, 1, 5, 5)
    maps[0, 0, 2, 2] = 1
    _, switches = F.max_pool2d(maps, 3, 2, return_indices=True)
    assert switches.flatten().tolist() == [12, 12, 12, 12]
    back = unpool(torch.tensor([1.0, 2, 3, 4]).view(1, 1, 2, 2), switches, size=5, overlap=overlap)
    assert back[0, 0, 2, 2] == expected and back.abs().sum() == expected


@pytest.mark.parametrize("overlap", ["sum", "max", "last"])
@pytest.mark.parametrize(
    "kernel, stride, padding, ceil", [(2, 2, 0, False), (3, 2, 0, True), (3, 1, 1, False), (4, 3, 2, True)]
)
def test_unpool_equals_loops(overlap, kernel, stride, padding, ceil):
    torch.manual_seed(kernel)
    maps = torch.randn(2, 3, 9, 7, dtype=torch.float64)
    _, switches = F.max_pool2d(maps, kernel, stride, padding, ceil_mode=ceil, return_indices=True)
    values = torch.randn(switches.shape, dtype=torch.float64)  # negative ones too
    expected = unpool_by_loops(values, switches, (9, 7), overlap)
    torch.testing.assert_close(unpool(values, switches, size=(9, 7), overlap=overlap), expected)


def test_unpool_equals_torch_where_windows_do_not_overlap():
    pooled, switches = F.max_pool2d(torch.randn(2, 3, 8, 6), 2, return_indices=True)
    for overlap in ("sum", "max", "last"):
        assert torch.equal(unpool(pooled, switches, size=(8, 6), overlap=overlap), F.max_unpool2d(pooled, switches, 2))


def test_unpool_takes_one_side_a_whole_shape_and_a_single_map():
    maps = torch.randn(1, 2, 6, 6)
    pooled, switches = F.max_pool2d(maps, 2, return_indices=True)
    whole = unpool(pooled, switches, size=6)
    assert torch.equal(whole, unpool(pooled, switches, size=maps.shape))
    assert torch.equal(whole[0, 0], unpool(pooled[0, 0], switches[0, 0], size=6))


def test_unpool_says_what_is_wrong():
    pooled, switches = F.max_pool2d(torch.randn(1, 1, 6, 6), 2, return_indices=True)
    with pytest.raises(ValueError, match=r"switches must be one per value, \(1, 1, 2, 3\), got \(1, 1, 3, 3\)"):
        unpool(pooled[:, :, 1:], switches, size=6)
    with pytest.raises(ValueError, match="switches point outside a 5x5 map"):
        unpool(pooled, switches + 20, size=5)
    with pytest.raises(ValueError, match="overlap must be one of 'sum', 'max', 'last', got 'mean'"):
        unpool(pooled, switches, size=6, overlap="mean")


def test_rectify():
    assert torch.equal(rectify(torch.tensor([-1.0, 0, 2])), torch.tensor([0.0, 0, 2]))


# --- the transposed filter ------------------------------------------------------------------------------------------

FILTERS = [
    {"kernel_size": 3}, {"kernel_size": 3, "stride": 2}, {"kernel_size": 5, "stride": 3, "padding": 3},
    {"kernel_size": 2, "stride": 4, "padding": 1}, {"kernel_size": 3, "padding": 2, "dilation": 2},
    {"kernel_size": (3, 5), "stride": (2, 1), "padding": (0, 2)}, {"kernel_size": 3, "groups": 2},
    {"kernel_size": 3, "groups": 4, "stride": 2}, {"kernel_size": 4, "padding": "same"},
    {"kernel_size": 3, "padding": "same"},
    {"kernel_size": (2, 4), "padding": "same", "dilation": (1, 2)}, {"kernel_size": 3, "padding": "valid", "stride": 2},
    {"kernel_size": 1, "stride": 3}, {"kernel_size": 2, "stride": 2, "dilation": 4},
]  # fmt: skip


@pytest.mark.parametrize("settings", FILTERS, ids=str)
@pytest.mark.parametrize("size", [(9, 11), (10, 10)], ids=str)
@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("channels", [3, 4])
def test_transposed_filter_is_the_adjoint(settings, size, channels):
    if channels % settings.get("groups", 1):
        return
    torch.manual_seed(0)
    conv = nn.Conv2d(channels, 8, **settings).double()
    below = torch.randn(2, channels, *size, dtype=torch.float64, requires_grad=True)
    forward = conv(below) - conv.bias.view(-1, 1, 1)
    above = torch.randn_like(forward)
    back = transposed_filter(above, conv, size=size)
    oracle.close(back, torch.autograd.grad(forward, below, above)[0], 1e-12)
    torch.testing.assert_close((forward * above).sum(), (below * back).sum())
    if not isinstance(conv.padding, str):
        args = (conv.stride, conv.padding, conv.dilation, conv.groups)
        torch.testing.assert_close(back, torch.nn.grad.conv2d_input(below.shape, conv.weight, above, *args))


def test_transposed_filter_is_the_transposed_matrix():
    conv = nn.Conv2d(2, 3, 3, stride=2, padding=1, bias=False).double()
    units = torch.eye(2 * 5 * 4, dtype=torch.float64).view(-1, 2, 5, 4)
    matrix = torch.stack([conv(unit[None]).flatten() for unit in units], dim=1)  # column by column
    above = torch.randn(1, 3, 3, 2, dtype=torch.float64)
    expected = (matrix.T @ above.flatten()).view(1, 2, 5, 4)
    torch.testing.assert_close(transposed_filter(above, conv, size=(5, 4)), expected)


@pytest.mark.parametrize("size", [223, 224])
def test_a_stride_leaves_the_size_open(size):
    conv = zflib.ZFNet(2).conv1
    maps = torch.randn(1, 96, 110, 110)
    back = transposed_filter(maps, conv, size=size)
    assert back.shape == (1, 3, size, size)
    oracle.close(back, torch.nn.grad.conv2d_input(back.shape, conv.weight, maps, 2, 1).detach())


def test_transposed_filter_says_what_is_wrong():
    conv = nn.Conv2d(2, 3, 3)
    with pytest.raises(ValueError, match=r"maps must be \(N, 3, 3, 3\) for size 5x5, got \(1, 3, 4, 4\)"):
        transposed_filter(torch.randn(1, 3, 4, 4), conv, size=5)
    with pytest.raises(TypeError, match=r"conv must be an nn.Conv2d, got Linear"):
        transposed_filter(torch.randn(1, 3, 4, 4), nn.Linear(2, 2), size=5)
    with pytest.raises(ValueError, match="conv pads with 'circular'"):
        transposed_filter(torch.randn(1, 3, 4, 4), nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"), size=4)


# --- single layers and small networks -------------------------------------------------------------------------------


class Net(nn.Module):
    """conv -> `middle` -> conv -> ReLU: whatever the middle does to (N,6,h,w) maps, two filters are around it."""

    def __init__(self, middle, *parts, out=6):
        super().__init__()
        self.first, self.relu, self.last = nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.LazyConv2d(5, 2)
        self.parts, self.middle = nn.ModuleList(parts), middle

    def forward(self, x):
        x = self.middle(self, self.first(x)) if callable(self.middle) else self.first(x)
        return self.relu(self.last(x))


def build(middle, *parts, size=(9, 11), dtype=torch.float64, seed=0):
    torch.manual_seed(seed)
    images = torch.randn(2, 3, *size, dtype=dtype)
    net = Net(middle, *parts).to(dtype).eval()
    net(images)
    return he(net), images


def module(*parts):
    return lambda net, x: nn.Sequential(*net.parts)(x), *parts


POOLS = [
    {"kernel_size": 2}, {"kernel_size": 3, "stride": 2}, {"kernel_size": 3, "stride": 2, "ceil_mode": True},
    {"kernel_size": 3, "stride": 1, "padding": 1}, {"kernel_size": 3, "stride": 2, "padding": 1},
    {"kernel_size": 2, "stride": 2, "ceil_mode": True}, {"kernel_size": 2, "stride": 3, "ceil_mode": True},
    {"kernel_size": 2, "stride": 2, "dilation": 2}, {"kernel_size": (3, 2), "stride": (1, 2)},
    {"kernel_size": 3, "stride": 2, "dilation": 2, "padding": 1}, {"kernel_size": 3, "stride": 4, "ceil_mode": True},
]  # fmt: skip


@pytest.mark.parametrize("settings", POOLS, ids=str)
def test_max_pools(settings):
    for parts in ([nn.MaxPool2d(**settings)], [nn.ReLU(), nn.MaxPool2d(**settings), nn.ReLU()]):
        net, images = build(*module(*parts))
        agree(net, "relu", images)
        agree(net, "parts.0", images)


@pytest.mark.parametrize("settings", [s for s in FILTERS if s["kernel_size"] != 2], ids=str)
@pytest.mark.parametrize("pool", [False, True])
@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_filters_in_a_network(settings, pool):
    conv = nn.Conv2d(6, 12, **settings) if settings.get("groups") != 4 else nn.Conv2d(6, 12, 3, stride=2, groups=6)
    middle = [nn.ReLU(), conv, nn.ReLU(), *([nn.MaxPool2d(2, 1)] if pool else [])]
    net, images = build(*module(*middle), size=(14, 13))
    agree(net, "relu", images)


class Inplace(nn.Module):
    def forward(self, x):
        x += 0.1
        return x.relu_().mul_(2)


def shuffle(net, x):
    n, c, h, w = x.shape
    return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


MIDDLES = {
    "relu": module(nn.ReLU()),
    "relu in place": module(nn.ReLU(inplace=True)),
    "F.relu": (lambda net, x: F.relu(x),),
    "F.relu in place": (lambda net, x: F.relu(x, inplace=True),),
    "torch.relu": (lambda net, x: torch.relu(x),),
    "method": (lambda net, x: x.relu(),),
    "relu_": (lambda net, x: x.relu_(),),
    "torch.relu_": (lambda net, x: torch.relu_(x),),
    "avg pool": module(nn.AvgPool2d(3, 2, padding=1, ceil_mode=True), nn.ReLU()),
    "avg pool without padding": module(nn.AvgPool2d(2, 1, padding=1, count_include_pad=False)),
    "adaptive avg pool": module(nn.ReLU(), nn.AdaptiveAvgPool2d((4, 3))),
    "adaptive max pool": module(nn.AdaptiveMaxPool2d((4, 3)), nn.ReLU()),
    "batch norm": module(nn.BatchNorm2d(6, eps=0.1), nn.ReLU()),
    "batch norm, not affine": module(nn.BatchNorm2d(6, affine=False), nn.ReLU()),
    "dropout": module(nn.Dropout(), nn.ReLU(), nn.Dropout2d()),
    "response norm": module(nn.ReLU(), nn.LocalResponseNorm(5), nn.MaxPool2d(3, 2)),
    "our response norm": module(nn.ReLU(), ResponseNorm(3, alpha=1.0), nn.MaxPool2d(3, 2)),
    "nested": module(nn.Sequential(nn.ReLU(), nn.Sequential(nn.Conv2d(6, 6, 1), nn.Identity(), nn.ReLU()))),
    "x + y": (lambda net, x: F.relu(x) + net.parts[0](x), nn.Conv2d(6, 6, 3, padding=1)),
    "x - 2 y": (lambda net, x: torch.sub(F.relu(x), net.parts[0](x), alpha=2), nn.Conv2d(6, 6, 3, padding=1)),
    "x + x": (lambda net, x: x.relu() + x.relu() + x,),
    "x += y": (lambda net, x: net.parts[0](x).add_(x), nn.Conv2d(6, 6, 3, padding=1)),
    "constants": (lambda net, x: (x * 2 - 0.3) / torch.tensor(1.5) + torch.ones(6, 1, 1) * 0.1,),
    "channel gains": (lambda net, x: torch.linspace(0.5, 1.5, 6).to(x).view(1, 6, 1, 1) * x,),
    "cat": (lambda net, x: torch.cat([x.relu(), net.parts[0](x), -x], 1), nn.Conv2d(6, 4, 1)),
    "cat of rows": (lambda net, x: torch.cat([x.relu(), x], dim=-2),),
    "slice": (lambda net, x: x[:, 1:5:2, 1:, :-2].relu(),),
    "select": (lambda net, x: x[:, 2].relu().unsqueeze(1),),
    "split": (lambda net, x: torch.cat(x.chunk(3, 1)[::-1], 1),),
    "unbind": (lambda net, x: x.unbind(1)[3].unsqueeze(1),),
    "permute": (lambda net, x: x.permute(0, 1, 3, 2).relu(),),
    "shuffle": (shuffle,),
    "channel shuffle": module(nn.ChannelShuffle(3)),
    "pixel shuffle": (lambda net, x: F.pixel_shuffle(x[:, :4], 2),),
    "upsample": module(nn.Upsample(scale_factor=2), nn.ReLU()),
    "upsample, bilinear": module(nn.Upsample(scale_factor=1.5, mode="bilinear")),
    "transposed": module(nn.ConvTranspose2d(6, 4, 3, stride=2, padding=1, output_padding=1), nn.ReLU()),
    "transposed, dilated": module(nn.ConvTranspose2d(6, 4, 2, stride=1, dilation=3, output_padding=2, groups=2)),
    "pool of rows": (lambda net, x: F.max_pool1d(x.flatten(2), 3, 2).relu().unflatten(2, (7, 7)),),
    "padding": (lambda net, x: F.pad(x, (1, 2, 0, 3)),),
    "negative padding": (lambda net, x: F.pad(x, (1, -2, -1, 0), value=0.7),),
    "reflection": module(nn.Conv2d(6, 6, 3, padding=1, padding_mode="reflect"), nn.ReLU()),
    "replication": module(nn.ReplicationPad2d(2)),
    "reshape": (lambda net, x: x[:, :, 1:].permute(0, 1, 3, 2).reshape(len(x), 12, -1, 11).relu(),),
    "in place": module(Inplace()),
    "in place on one path": (lambda net, x: F.relu_(x.clone()) + x,),
    "weight norm": module(nn.utils.parametrizations.weight_norm(nn.Conv2d(6, 6, 3)), nn.ReLU()),
    "spectral norm": module(nn.utils.parametrizations.spectral_norm(nn.Conv2d(6, 6, 3)), nn.ReLU()),
    "checkpointed": (lambda net, x: checkpoint(net.parts[0], x, use_reentrant=False), nn.Conv2d(6, 6, 3)),
    "rows summed": (lambda net, x: x.relu().sum(1, keepdim=True),),
    "flipped": (lambda net, x: x.relu().flip(-1),),
    "global mean added to nothing": (lambda net, x: F.interpolate(x.relu().mean((2, 3), keepdim=True), size=(4, 4)),),
}  # fmt: skip


@pytest.mark.parametrize("name", MIDDLES)
def test_middles(name):
    net, images = build(*MIDDLES[name])
    agree(net, "relu", images)
    agree(net, "last", images[:1], rules=["deconvnet"])


@torch.no_grad()
@pytest.mark.parametrize("name", MIDDLES)
def test_every_step_can_be_computed_again(name):
    net, images = build(*MIDDLES[name])
    assert oracle.replay(net, images, "last") >= 1


HEADS = {
    "flatten": nn.Sequential(nn.ReLU(), nn.Flatten(), nn.LazyLinear(7), nn.ReLU(), nn.Dropout(), nn.Linear(7, 4)),
    "without bias": nn.Sequential(nn.Flatten(), nn.LazyLinear(7, bias=False), nn.ReLU()),
    "batch norm": nn.Sequential(nn.Flatten(), nn.LazyLinear(7), nn.BatchNorm1d(7), nn.ReLU()),
    "pooled": nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyLinear(7), nn.ReLU()),
}


@pytest.mark.parametrize("name", HEADS)
def test_heads(name):
    torch.manual_seed(0)
    images = torch.randn(2, 3, 9, 8, dtype=torch.float64)
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2), *HEADS[name]).double().eval()
    net(images)
    he(net)
    for path in [path for path, m in net.named_children() if int(path) > 3]:
        agree(net, path, images)


class Functional(nn.Module):
    def __init__(self, mean):
        super().__init__()
        self.conv, self.fc, self.mean = nn.Conv2d(3, 6, 3), nn.Linear(6, 4), mean

    def forward(self, x):
        return self.fc(self.mean(torch.relu(self.conv(x))))


MEANS = [
    lambda x: x.mean((2, 3)), lambda x: x.mean([-1, -2]), lambda x: x.flatten(2).mean(-1),
    lambda x: F.adaptive_avg_pool2d(x, 1).view(x.size(0), -1), lambda x: x.sum(2).sum(2),
]  # fmt: skip


@pytest.mark.parametrize("mean", MEANS)
def test_means_over_the_map(mean):
    torch.manual_seed(0)
    agree(he(Functional(mean)).double(), "fc", torch.randn(2, 3, 7, 6, dtype=torch.float64))


def random_network(draw):
    """A chain of drawn layers that a (·,3,19,16) image goes through; may branch."""
    layers, channels = [], 3
    for _ in range(draw.randint(2, 5)):
        groups = draw.choice([1, 1, 1, channels])
        out, kernel = groups * draw.randint(1, 4), (draw.randint(1, 4), draw.randint(1, 4))
        padding = (draw.randint(0, 3), draw.randint(0, 3))
        settings = {"stride": draw.choice([1, 1, 2, 3, 4]), "padding": padding, "dilation": draw.choice([1, 1, 2])}
        layers += [nn.Conv2d(channels, out, kernel, groups=groups, bias=draw.random() < 0.5, **settings)]
        layers += [nn.BatchNorm2d(out)] if draw.random() < 0.3 else []
        layers += [nn.ReLU(inplace=draw.random() < 0.5)] if draw.random() < 0.8 else []
        layers += [ResponseNorm(3)] if draw.random() < 0.2 else []
        size = draw.choice([2, 3])
        pool = nn.MaxPool2d(
            size, draw.choice([1, 2, 3]), draw.choice([0, 1]), draw.choice([1, 1, 2]), ceil_mode=draw.random() < 0.5
        )
        layers += [pool] if draw.random() < 0.5 else []
        channels = out
    return nn.Sequential(*layers)


@pytest.mark.parametrize("seed", range(40))
def test_drawn_networks(seed):
    """Strides 1 to 4, paddings 0 to 3, dilations, groups and pools of every kind, at odd sizes."""
    draw = random.Random(seed)
    torch.manual_seed(seed)
    images, checked = torch.randn(2, 3, 19, 16, dtype=torch.float64), 0
    while not checked:
        net = he(random_network(draw)).double().eval()
        for rule in oracle.RULES:
            d = zflib.Deconvnet(net, rule=rule)
            for layer in dict(net.named_children()):
                try:
                    maps = d.activations(images, layer)
                except ValueError:
                    break  # the maps have become too small for the next kernel
                channels = strong(maps)
                expected = oracle.project(net, images, layer, channels.tolist(), rule=rule)
                if expected.abs().max() > 0:
                    oracle.close(d.project(images, layer, channels), expected)
                    checked += 1


# --- well-known networks --------------------------------------------------------------------------------------------

BARE = {"init_weights": False, "aux_logits": False}
KNOWN = {
    "alexnet": (tv.alexnet, {}, 63, ["features.2", "features.12"]),
    "vgg16": (lambda: tv.vgg16(init_weights=False).features, {}, 32, ["4", "30"]),
    "vgg11_bn": (lambda: tv.vgg11_bn().features[:15], {}, 32, ["14"]),
    "squeezenet": (tv.squeezenet1_1, {}, 64, ["features.7", "classifier"]),
    "resnet18": (tv.resnet18, {}, 64, ["layer1.0.conv2", "layer3", "fc"]),
    "googlenet": (tv.googlenet, BARE | {"transform_input": True}, 64, ["inception4a", "fc"]),
    "densenet121": (tv.densenet121, {}, 48, ["features.denseblock1", "classifier"]),
    "shufflenet": (tv.shufflenet_v2_x0_5, {}, 64, ["stage3", "fc"]),
    "resnext": (lambda: tv.resnext50_32x4d().requires_grad_(False), {}, 33, ["layer2"]),
}  # fmt: skip


DAILY = ("vgg11_bn", "squeezenet", "resnet18")  # they have the pools, batch norms, sums and concatenations


@pytest.mark.parametrize("name", [n if n in DAILY else pytest.param(n, marks=pytest.mark.nightly) for n in KNOWN])
def test_known_networks(name):
    make, settings, size, layers = KNOWN[name]
    torch.manual_seed(0)
    net = he(make(**settings))
    images = torch.randn(1, 3, size, size)
    for layer, rules in zip(layers, (oracle.RULES, ["deconvnet"], ["gradient"])):
        agree(net, layer, images, rules)


def test_zfnet56():
    torch.manual_seed(0)
    net = he(zflib.zfnet56(10))
    for layer in ["conv1", "norm1", "pool2", "conv5"]:
        agree(net, layer, torch.randn(2, 3, 56, 56))
    agree(net, "fc8", torch.randn(1, 3, 56, 56), rules=["deconvnet"])


# --- what runs is what the notebooks build --------------------------------------------------------------------------


def calls(run):
    """How often the three public functions begin, as a breakpoint in them would see it."""
    codes, counted = {f.__code__: f.__name__ for f in (unpool, rectify, transposed_filter)}, Counter()

    def count(frame, event, argument):
        if event == "call" and frame.f_code in codes:
            counted[codes[frame.f_code]] += 1

    sys.setprofile(count)
    try:
        run()
    finally:
        sys.setprofile(None)
    return counted


@pytest.mark.parametrize("rule", oracle.RULES)
@pytest.mark.parametrize("overlap", ["sum", "max", "last"])
@pytest.mark.parametrize("layer, relus", [("8", 3), ("11", 4)], ids=["convolutional", "fully connected"])
def test_what_runs_is_unpool_rectify_and_transposed_filter(rule, overlap, layer, relus):
    net = nn.Sequential(*small(), nn.Flatten(), nn.LazyLinear(5).double(), nn.ReLU())
    image = torch.randn(1, 3, 27, 23, dtype=torch.float64)
    net(image)
    nn.init.ones_(net[10].bias)
    d = zflib.Deconvnet(net, rule=rule, overlap=overlap)
    channel = int(strong(d.activations(image, layer)))
    rectified = {} if rule == "gradient" else {"rectify": relus}
    assert calls(lambda: d.project(image, layer, channel)) == {"unpool": 2, "transposed_filter": 3, **rectified}


# --- the caller's own rules -----------------------------------------------------------------------------------------


def by_autograd(function):
    return lambda signal, input, output: torch.func.vjp(function, input)[1](signal)[0]


OWN = {
    "gelu": (nn.GELU(), by_autograd(F.gelu)),
    "relu6": (nn.ReLU6(), lambda signal, input, output: signal * (input > 0) * (input < 6)),
    "relu6 in place": (nn.ReLU6(inplace=True), lambda signal, input, output: signal * (output > 0) * (output < 6)),
    "group norm": (nn.GroupNorm(2, 6), by_autograd(lambda maps: F.group_norm(maps, 2))),
}


@pytest.mark.parametrize("name", OWN)
def test_a_rule_of_ones_own(name):
    part, rule = OWN[name]
    net, images = build(lambda net, x: net.parts[0](net.parts[1](x)) + x, part, nn.Conv2d(6, 6, 1))
    for inside in oracle.RULES:
        d = zflib.Deconvnet(net, rule=inside, rules={type(part): rule})
        channels = strong(d.activations(images, "relu"))
        expected = oracle.project(net, images, "relu", channels.tolist(), rule=inside)
        oracle.close(d.project(images, "relu", channels), expected)
    with pytest.raises(zflib.deconv.Unsupported):
        zflib.Deconvnet(net).project(images, "relu", 0)


class Block(nn.Module):
    def forward(self, x):
        return F.silu(x.sigmoid_())


def test_a_rule_of_ones_own_for_a_whole_block():
    """Nothing inside the module is looked at."""
    net, images = build(*module(nn.ReLU(), Block(), nn.ReLU()))
    once, twice = (zflib.Deconvnet(net, rules={Block: lambda s, i, o, k=k: k * s}) for k in (1, 2))
    oracle.close(twice.project(images, "relu", 0), 2 * once.project(images, "relu", 0))
    oracle.close(twice.activations(images, "relu"), net(images).detach())


class Excite(nn.Module):
    """Squeeze-and-excite, as timm builds it: a gate of modules that have no rule themselves."""

    def __init__(self):
        super().__init__()
        self.squeeze = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(6, 6, 1), nn.SiLU(), nn.Sigmoid())

    def forward(self, x):
        return x * self.squeeze(x)


def test_a_rule_for_a_block_is_one_for_all_that_is_in_it():
    net, images = build(*module(Excite(), nn.ReLU()))
    with pytest.raises(zflib.deconv.Unsupported, match=r"'parts.0.squeeze.2' is a SiLU"):
        zflib.Deconvnet(net)
    rules = {Excite: by_autograd(net.parts[0])}
    d = zflib.Deconvnet(net, rule="gradient", rules=rules)
    channels = strong(d.activations(images, "relu"))
    expected = oracle.project(net, images, "relu", channels.tolist(), rule="gradient")
    oracle.close(d.project(images, "relu", channels), expected)
    assert not any(layer.refused for layer in zflib.layers(net, images[0], rules=rules))
    with pytest.raises(zflib.deconv.Unsupported, match=r"module 'parts.1' is a SiLU"):  # beside the block
        zflib.Deconvnet(build(*module(Excite(), nn.SiLU()))[0], rules=rules)


def test_a_rule_may_use_torch_autograd():
    def slope(signal, input, output):
        input = input.detach().requires_grad_()
        return torch.autograd.grad(F.gelu(input), input, signal, create_graph=True)[0]

    net, images = build(*module(nn.GELU()))
    found, expected = (zflib.Deconvnet(net, rules={nn.GELU: rule}).project(images, "relu", 0)
                       for rule in (slope, by_autograd(F.gelu)))  # fmt: skip
    oracle.close(found, expected)
    assert not found.requires_grad


def test_who_is_refused_is_told_how_to_hand_a_rule():
    net, images = build(*module(nn.GroupNorm(2, 6)))
    with pytest.raises(zflib.deconv.Unsupported, match=r"'parts.0' \(GroupNorm\).*rules=\{GroupNorm: …\}"):
        zflib.Deconvnet(net).project(images, "relu", 0)
    net, images = build(lambda net, x: F.gelu(x))
    with pytest.raises(zflib.deconv.Unsupported, match="make it a module of its own"):
        zflib.Deconvnet(net).project(images, "relu", 0)


def test_what_a_block_wrote_over_is_not_followed():
    def beside(net, x):
        view = x.view(x.shape)
        return net.parts[0](x) + view

    net, images = build(beside, Block())
    with pytest.raises(zflib.deconv.Unsupported, match="Block through another view of the same memory"):
        zflib.Deconvnet(net, rules={Block: lambda s, i, o: s}).project(images, "relu", 0)


def test_what_is_wrong_with_rules():
    net, images = build(*module(nn.GELU()))
    for rules in ({"GELU": F.gelu}, {nn.GELU: 1}, {nn.GELU(): F.gelu}):
        with pytest.raises(TypeError, match=r"rules must be \{kind of module: function\}, got .*; give \{nn.GELU: "):
            zflib.Deconvnet(net, rules=rules)
    with pytest.raises(ValueError, match=r"rules: that for GELU must give \(2, 6, 9, 11\), got \(2, 6, 3\)"):
        d = zflib.Deconvnet(net, rules={nn.GELU: lambda signal, input, output: signal[..., :3, 0]})
        d.project(images, "relu", 0)
    with pytest.raises(zflib.deconv.Unsupported, match=r"GELU.*a rule of your own: Deconvnet\(net, rules=\{nn.GELU: "):
        zflib.Deconvnet(net)
    net, images = build(lambda net, x: net.parts[0](x[:, 0])[0][:, None].expand(-1, 6, -1, -1), nn.LSTM(11, 11))
    with pytest.raises(zflib.deconv.Unsupported, match=r"rules: LSTM gives tuple, a rule is for one tensor"):
        zflib.Deconvnet(net, rules={nn.LSTM: lambda signal, input, output: signal}).activations(images, "last")
    net, images = build(lambda net, x: net.parts[0](x, x), nn.Bilinear(11, 11, 11))
    with pytest.raises(zflib.deconv.Unsupported, match=r"rules: module 'parts.0' takes 2 tensors"):
        zflib.Deconvnet(net, rules={nn.Bilinear: lambda signal, input, output: signal}).activations(images, "parts.0")


# --- project_all, ties, dead channels, overlap ----------------------------------------------------------------------


def small(seed=0, dtype=torch.float64):
    torch.manual_seed(seed)
    net = he(nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True), ResponseNorm(),
        nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2), nn.Conv2d(8, 7, 2), nn.ReLU(),
    )).to(dtype).eval()  # fmt: skip
    nn.init.ones_(net[7].bias)  # no dead channels
    return net


@pytest.mark.parametrize("rule", oracle.RULES)
@pytest.mark.parametrize("overlap", ["sum", "max", "last"])
def test_project_all_is_project_channel_by_channel(rule, overlap):
    net, image = small(), torch.randn(3, 27, 23, dtype=torch.float64)
    d = zflib.Deconvnet(net, rule=rule, overlap=overlap)
    for layer in ("1", "2", "4", "8"):
        everything = d.project_all(image, layer)
        one_by_one = torch.cat([d.project(image[None], layer, c) for c in range(len(everything))])
        oracle.close(everything, one_by_one, 1e-12)
        assert torch.equal(everything, d.project_all(image[None], layer))


def test_project_all_of_units_and_of_branches():
    torch.manual_seed(0)
    net, image = he(tv.resnet18()), torch.randn(3, 40, 40)
    for layer in ("layer1.0.conv1", "layer2.0.downsample"):
        d = zflib.Deconvnet(net)
        one_by_one = torch.cat([d.project(image[None], layer, c) for c in range(4)])
        oracle.close(d.project_all(image, layer)[:4], one_by_one)
    head = he(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5)))
    d = zflib.Deconvnet(head)
    image = image[:, :8, :8]
    oracle.close(d.project_all(image, "3"), torch.cat([d.project(image[None], "3", c) for c in range(5)]))


@pytest.mark.parametrize("overlap", ["max", "last"])
def test_overlap_reaches_the_pixels(overlap):
    """One pool on the way: the projection through it by hand, with the loops above."""
    torch.manual_seed(1)
    pool = nn.MaxPool2d(3, 1)
    net, image = (
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), pool, nn.Conv2d(4, 2, 3)).double(),
        torch.randn(1, 3, 9, 9).double(),
    )
    below = net[1](net[0](image))
    pooled, switches = F.max_pool2d(below, 3, 1, return_indices=True)
    above = oracle.seed(net[3](pooled), [1])
    by_hand = rectify(unpool_by_loops(transposed_filter(above, net[3], size=pooled.shape), switches, (7, 7), overlap))
    by_hand = transposed_filter(by_hand, net[0], size=(9, 9))
    ours = zflib.Deconvnet(net, overlap=overlap).project(image, "3", 1)
    oracle.close(ours, by_hand.detach())
    assert not torch.allclose(ours, zflib.Deconvnet(net).project(image, "3", 1))


def test_dead_channels_project_to_zeros():
    net, image = small(), torch.randn(3, 27, 23, dtype=torch.float64)
    with torch.no_grad():
        net[7].bias[2], net[7].weight[2] = -1.0, 0.0
        net[7].bias[3], net[7].weight[3] = 0.0, 0.0
    projections = zflib.Deconvnet(net).project_all(image, "8")
    assert not projections[2:4].any() and projections[[0, 1, 4, 5, 6]].flatten(1).any(1).sum() >= 3
    assert not zflib.Deconvnet(net).project(image[None], "8", 2).any()


def test_a_layer_may_be_the_module_itself():
    net, images = small(), torch.randn(2, 3, 27, 23, dtype=torch.float64)
    d = zflib.Deconvnet(net)
    assert torch.equal(d.project(images, net[7], 1), d.project(images, "7", 1))
    net, images = zflib.zfnet56(3), torch.randn(1, 3, 56, 56)
    before, after = (zflib.Deconvnet(net).activations(images, layer) for layer in (net.conv3, "conv3"))
    assert before.min() < 0 and torch.equal(before.relu(), after)


def test_ties_go_to_the_first_position_in_reading_order():
    net = nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU(), nn.MaxPool2d(2), nn.ReLU())
    nn.init.ones_(net[0].weight)
    d, images = zflib.Deconvnet(net), torch.ones(1, 3, 4, 4)
    projected = d.project(images, "3", 0)
    assert torch.equal(projected, d.project(images, "3", 0, positions=(0, 0)))
    assert projected.nonzero().tolist() == [[0, c, 0, 0] for c in range(3)]
    assert torch.equal(projected[0], d.project_all(images[0], "3")[0])


def test_negative_activation_before_a_relu():
    net, images = small(), torch.randn(2, 3, 27, 23, dtype=torch.float64)
    maps = zflib.Deconvnet(net).activations(images, "7")
    low = [divmod(int(m[1].argmin()), m.shape[-1]) for m in maps]
    ours = zflib.Deconvnet(net, rule="gradient").project(images, "7", 1, positions=low)
    oracle.close(ours, oracle.project(net, images, "7", [1, 1], positions=low, rule="gradient"))


def test_gradient_scales_with_the_activation_and_rules_differ():
    net, images = small(), torch.randn(2, 3, 27, 23, dtype=torch.float64)
    by_rule = [zflib.Deconvnet(net, rule=rule).project(images, "8", 4) for rule in oracle.RULES]
    assert not any(torch.allclose(a, b) for a, b in zip(by_rule, by_rule[1:] + by_rule[:1]))


# --- the network and the images are left as they were ---------------------------------------------------------------


def hooks(net):
    kinds = [kind for kind in vars(net) if "hooks" in kind]
    assert len(kinds) > 8
    return [(path, kind, list(getattr(m, kind))) for path, m in net.named_modules() for kind in kinds]


def state(net):
    tensors = {**dict(net.named_parameters()), **dict(net.named_buffers())}
    return {
        "hooks": hooks(net),
        "modes": [m.training for m in net.modules()],
        "grads": [(p.requires_grad, None if p.grad is None else p.grad.clone()) for p in net.parameters()],
        "tensors": {name: (id(t), t.detach().clone(), t._version) for name, t in tensors.items()},
        "attributes": [sorted(vars(m)) for m in net.modules()],
    }


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


class Fails(nn.Module):
    def forward(self, x):
        raise KeyError("out of order")


def mixed_network():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Dropout(), nn.Conv2d(4, 3, 2), Fails()
    )
    net.train()
    net[1].eval()
    net[4].weight.requires_grad_(False)
    net[0].weight.grad = torch.ones_like(net[0].weight)
    net[2].register_forward_hook(lambda m, i, o: None)
    net[2].register_forward_pre_hook(lambda m, i: None)
    net[0].register_full_backward_hook(lambda m, i, o: None)
    net[3].custom = "kept"
    return net


@pytest.mark.parametrize("layer", ["1", "4", "5", "nowhere"])
def test_the_network_is_left_as_found(layer):
    net, images = mixed_network(), torch.randn(2, 3, 9, 9)
    before, pixels = state(net), images.clone()
    calls = [
        lambda d: d.project(images, layer, 0),
        lambda d: d.activations(images, layer),
        lambda d: d.project_all(images[0], layer),
    ]
    for rule in oracle.RULES:
        for call in calls:
            try:
                call(zflib.Deconvnet(net, rule=rule))
                assert layer in ("1", "4")
            except (KeyError, ValueError):
                assert layer in ("5", "nowhere")
            assert same(state(net), before)
    assert torch.equal(images, pixels) and not vars(images)


def test_evaluation_mode_while_it_runs():
    net, images = mixed_network(), torch.randn(2, 3, 9, 9)
    net[0]._backward_hooks.clear()  # torch refuses it beside an in-place ReLU
    agree(net, "4", images)
    assert [m.training for m in net] == [True, False, True, True, True, True]


class Stubborn(nn.Module):
    """Normalises with the batch's statistics whatever the mode, and counts its calls in a buffer."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls = self.calls + 1
        self.bn.train()
        return self.bn(self.conv(x)).relu()


def test_buffers_and_modes_survive_a_network_that_changes_them():
    net, images = Stubborn().eval(), torch.randn(2, 3, 9, 9)
    before = {name: b.clone() for name, b in net.named_buffers()}
    with pytest.raises(zflib.deconv.Unsupported, match="batch normalisation with the batch's own statistics"):
        zflib.Deconvnet(net).project(images, "bn", 0)
    assert not net.bn.training and all(torch.equal(b, before[name]) for name, b in net.named_buffers())


CONTEXTS = [
    torch.no_grad, torch.inference_mode, torch.enable_grad, lambda: torch.set_grad_enabled(False),
    lambda: torch.autocast("cpu", torch.bfloat16),
]  # fmt: skip


@pytest.mark.parametrize("context", CONTEXTS)
def test_any_context(context):
    net = small(dtype=torch.float32)
    images = torch.randn(2, 3, 27, 23)
    for rule, overlap in (("deconvnet", "sum"), ("guided", "max")):
        d = zflib.Deconvnet(net, rule=rule, overlap=overlap)
        expected, grad = d.project(images, "8", 4), torch.is_grad_enabled()
        with context():
            for given in (images, images.clone().requires_grad_(), images.clone()):
                assert torch.equal(d.project(given, "8", 4), expected)
                assert given.grad is None
        assert torch.is_grad_enabled() == grad and not expected.requires_grad


def test_a_network_made_in_inference_mode():
    with torch.inference_mode():
        net = small(dtype=torch.float32)
    assert zflib.Deconvnet(net).project(torch.randn(1, 3, 27, 23), "8", 4).any()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_results_have_the_type_of_the_network(dtype):
    net = small(dtype=torch.float32)
    images = torch.randn(1, 3, 27, 23)
    expected = zflib.Deconvnet(net, rule="gradient").project(images, "8", 4, positions=(0, 0))
    ours = zflib.Deconvnet(net.to(dtype), rule="gradient").project(images, "8", 4, positions=(0, 0))
    assert ours.dtype == dtype and ours.any()
    if dtype == torch.float64:
        oracle.close(ours.float(), expected, 1e-4)


def test_repeated_calls_leave_nothing_behind():
    import gc
    import weakref

    net, images = small(dtype=torch.float32), torch.randn(1, 3, 27, 23)
    d, kept = zflib.Deconvnet(net), []
    for _ in range(3):
        tape = d.record(images, "8")
        kept.append(weakref.ref(tape))
        d.project(images, "8", 4)
        del tape
    before = sum(isinstance(o, torch.Tensor) for o in gc.get_objects())
    for _ in range(3):
        d.project_all(images, "8")
    gc.collect()
    assert all(ref() is None for ref in kept) and not any(names for _, _, names in hooks(net))
    assert sum(isinstance(o, torch.Tensor) for o in gc.get_objects()) <= before


def test_activations_are_the_networks_own():
    net, images = small(dtype=torch.float32), torch.randn(2, 3, 27, 23)
    with torch.no_grad():
        torch.testing.assert_close(zflib.Deconvnet(net).activations(images, "8"), net(images))
        assert not vars(zflib.Deconvnet(net).activations(images, "8"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        zflib.Deconvnet(net).project(images, "8", 0)
