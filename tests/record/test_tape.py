"""The tape: what has no way down is refused by name, and nothing is followed wrongly."""

import contextlib

import numpy as np
import oracle
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import zflib
from zflib.deconv import Deconvnet, Unsupported
from zflib.record import Window, record
from zflib.record.steps import Add


class Around(nn.Module):
    """conv -> whatever `body(net, x)` does -> conv; layer "conv" is before it, "last" behind it."""

    def __init__(self, body, part=None, *, before=nn.Identity()):  # noqa: B008
        super().__init__()
        self.conv, self.body, self.part, self.last = nn.Conv2d(3, 4, 3, padding=1), body, part, nn.LazyConv2d(3, 1)
        self.register_buffer("buffer", torch.zeros(1, 4, 6, 6, dtype=torch.float64))

    def forward(self, x):
        return self.last(self.body(self, self.conv(x)))


def network(body, part=None, n=1):
    torch.manual_seed(0)
    images = torch.randn(n, 3, 6, 6, dtype=torch.float64)
    net = Around(body, part).double().eval()
    with torch.no_grad():
        net(images.clone())
    net.buffer.zero_()
    return net, images


# --- modules that are refused when the deconvnet is made ------------------------------------------------------------

MODULES = [
    nn.GELU(), nn.LeakyReLU(), nn.ReLU6(), nn.PReLU(), nn.RReLU(), nn.ELU(), nn.CELU(), nn.SELU(), nn.SiLU(), nn.Mish(),
    nn.Hardswish(), nn.Hardsigmoid(), nn.Hardtanh(), nn.Sigmoid(), nn.Tanh(), nn.Softplus(), nn.Softsign(),
    nn.Threshold(0.0, 0.0), nn.GLU(1), nn.MultiheadAttention(4, 2), nn.LSTM(4, 4), nn.Bilinear(2, 2, 2),
]  # fmt: skip


@pytest.mark.parametrize("module", MODULES, ids=lambda m: type(m).__name__)
def test_modules_without_a_rule_are_refused_by_name(module):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.ReLU(), module))
    with pytest.raises(
        Unsupported, match=rf"net: module '1.1' is a {type(module).__name__}, for which a deconvnet has no rule"
    ):
        Deconvnet(net)
    with pytest.raises(ValueError, match=type(module).__name__):  # it is an error of the value given, too
        Deconvnet(module)


def test_compiled_and_unfinished_networks():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    for jit in (torch.jit.script(net), nn.Sequential(torch.jit.trace(net, torch.randn(1, 3, 6, 6)))):
        with pytest.raises(Unsupported, match=r"is compiled \(.*\); pass the Python module"):
            Deconvnet(jit)
    with pytest.raises(ValueError, match=r"net: module '0' has no weights yet .LazyConv2d.; run the network once"):
        Deconvnet(nn.Sequential(nn.LazyConv2d(3, 3)))


# --- operations on the way that have no rule ------------------------------------------------------------------------


def fill_view(net, x):
    x[:, :, 1:3] = 0.0
    return x


def write_buffer(net, x):
    net.buffer.copy_(x)
    return net.buffer


def write_buffer_seen_through_a_view(net, x):
    view = net.buffer.view(1, 4, 6, 6)
    net.buffer.copy_(x)
    return view + 0.0


def write_buffer_slice(net, x):
    net.buffer[:, :, 1:] = x[:, :, 1:]
    return net.buffer * 1


def relu_on_view(net, x):
    x[:, :2].relu_()
    return x


def relu_behind_view(net, x):
    view = x[:, :3]
    x.relu_()
    return view


def relu_behind_flat_view(net, x):
    flat = x.view(len(x), -1)
    torch.relu_(x)
    return flat.view(x.shape)


def relu_on_data(net, x):
    x.data.relu_()
    return x


def index_put(net, x):
    x[x < 0] = 0
    return x


def out_variant(net, x):
    out = torch.empty_like(x)
    torch.mul(x, 2, out=out)
    return out


def out_over_itself(net, x):
    return torch.clamp(x, min=0, out=x)


def foreach(net, x):
    torch._foreach_mul_([x], 2.0)
    return x


def foreach_list(net, x):
    return torch._foreach_abs([x])[0]


def max_unpool(net, x):
    pooled, switches = F.max_pool2d(x, 2, return_indices=True)
    return F.max_unpool2d(pooled, switches, 2)


def custom_function(net, x):
    class Signs(torch.autograd.Function):
        @staticmethod
        def forward(ctx, maps):
            return maps.sign()

    return Signs.apply(x)


def unseen(net, x):
    """Stands for a kernel that torch's dispatcher does not see."""
    if torch.overrides.has_torch_function((x,)):
        return torch.overrides.handle_torch_function(unseen, (x,), net, x)
    return torch.ones(x.shape, dtype=x.dtype)


def scaled_addmm(net, x):
    return torch.addmm(torch.zeros(1).to(x), x.flatten(1), torch.eye(144).to(x), alpha=2).view_as(x)


@torch.jit.script
def scripted_gelu(x: torch.Tensor) -> torch.Tensor:
    return F.gelu(x)


@torch.library.custom_op("zflib_tests::relu", mutates_args=())
def impostor(x: torch.Tensor) -> torch.Tensor:
    return x.abs()


BODIES = {
    "gelu": (lambda net, x: F.gelu(x), "gelu"),
    "leaky_relu": (lambda net, x: F.leaky_relu(x), "leaky_relu"),
    "leaky_relu in place": (lambda net, x: F.leaky_relu(x, inplace=True), "leaky_relu"),
    "hardtanh": (lambda net, x: F.hardtanh(x), "hardtanh"),
    "relu6": (lambda net, x: F.relu6(x), "hardtanh"),
    "elu": (lambda net, x: F.elu(x), "elu"),
    "prelu": (lambda net, x: F.prelu(x, torch.ones(1).to(x)), "prelu"),
    "sigmoid": (lambda net, x: torch.sigmoid(x), "sigmoid"),
    "sigmoid_": (lambda net, x: x.sigmoid_(), "sigmoid"),
    "gate": (lambda net, x: x * torch.sigmoid(x), "sigmoid"),
    "silu": (lambda net, x: F.silu(x), "silu"),
    "tanh": (lambda net, x: x.tanh(), "tanh"),
    "softmax": (lambda net, x: x.softmax(1), "_softmax"),
    "clamp": (lambda net, x: x.clamp(min=0), "clamp"),
    "clamp_": (lambda net, x: x.clamp_(min=0), "clamp"),
    "clamp_min": (lambda net, x: torch.clamp_min(x, 0), "clamp_min"),
    "maximum": (lambda net, x: torch.maximum(x, torch.zeros_like(x)), "maximum"),
    "threshold": (lambda net, x: F.threshold(x, 0, 0), "threshold"),
    "abs": (lambda net, x: x.abs(), "abs"),
    "where": (lambda net, x: torch.where(x > 0, x, 0.0), "'gt'"),
    "mask": (lambda net, x: x * (x > 0), "'gt'"),
    "mask as numbers": (lambda net, x: x * (x > 0).to(x), "'gt'"),
    "mask by sign": (lambda net, x: x * x.detach().sign(), "detach"),
    "masked_fill": (lambda net, x: x.masked_fill(x < 0, 0), "'lt'"),
    "masked_fill_": (lambda net, x: x.masked_fill_(x < 0, 0), "'lt'"),
    "index_put": (index_put, "'lt'"),
    "square": (lambda net, x: x * x, "mul"),
    "pow": (lambda net, x: x**2, "pow"),
    "reciprocal": (lambda net, x: 1 / (x + 9), "reciprocal"),
    "quotient": (lambda net, x: x / x.std(), "std"),
    "floor division": (lambda net, x: torch.div(x, 0.1, rounding_mode="floor"), "div"),
    "round": (lambda net, x: x.round(), "round"),
    "matmul": (lambda net, x: x @ x.transpose(2, 3), "expand|_unsafe_view|bmm"),
    "einsum": (lambda net, x: torch.einsum("nchw,oc->nohw", x, torch.ones(4, 4).to(x)), "permute|bmm"),
    "linear over rows": (lambda net, x: F.linear(x, torch.ones(6, 6).to(x)), "view"),
    "layer norm": (lambda net, x: F.layer_norm(x, (6,)), "native_layer_norm"),
    "group norm": (lambda net, x: F.group_norm(x, 2), "native_group_norm"),
    "instance norm": (lambda net, x: F.instance_norm(x), "batch"),
    "batch norm of the batch": (lambda net, x: F.batch_norm(x, None, None, training=True), "batch's own statistics"),
    "response norm as a function": (lambda net, x: F.local_response_norm(x, 3), "mul|div"),
    "normalize": (lambda net, x: F.normalize(x), "linalg_vector_norm|div"),
    "lp pool": (lambda net, x: F.lp_pool2d(x, 2, 2), "pow|mul"),
    "fractional pool": (lambda net, x: F.fractional_max_pool2d(x, 2, output_size=3), "fractional_max_pool2d"),
    "max unpool": (max_unpool, "another result of max_pool2d_with_indices"),
    "max over channels": (lambda net, x: x.max(1, keepdim=True).values, "max"),
    "amax": (lambda net, x: x.amax((2, 3), keepdim=True), "amax"),
    "topk": (lambda net, x: x.topk(2, dim=1).values, "topk"),
    "conv1d": (lambda net, x: F.conv1d(x.flatten(2), torch.ones(4, 4, 1).to(x)).view_as(x), "convolution"),
    "conv3d": (lambda net, x: F.conv3d(x[:, None], torch.ones(1, 1, 1, 1, 1).to(x))[:, 0], "convolution"),
    "dynamic filter": (lambda net, x: F.conv2d(x, x[:1, :1, :1, :1].expand(1, 4, 1, 1)), "expand|convolution"),
    "batch moved": (lambda net, x: x.transpose(0, 1).transpose(0, 1), "transpose"),
    "batch moved, from the end": (lambda net, x: x.transpose(-4, 1).transpose(0, 1), "transpose"),
    "batch permuted": (lambda net, x: x.permute(1, 0, 2, 3).permute(1, 0, 2, 3), "permute"),
    "batch in channels": (lambda net, x: x.reshape(-1, 6, 6)[None].reshape(x.shape), "view"),
    "batch mean": (lambda net, x: x - x.mean(0, keepdim=True), "mean"),
    "batch sum": (lambda net, x: x.sum((0, 1), keepdim=True), "sum"),
    "mean of everything": (lambda net, x: x - x.mean(), "mean|sub"),
    "flip of the batch": (lambda net, x: x.flip(0), "flip"),
    "first image": (lambda net, x: x[:1], "slice"),
    "select of the batch": (lambda net, x: x[0].unsqueeze(0), "select"),
    "roll": (lambda net, x: x.roll(1), "roll"),
    "expand": (lambda net, x: x[:, :, :1, :1].expand(-1, -1, 4, 4), "expand"),
    "broadcast sum": (lambda net, x: x + x.mean((2, 3), keepdim=True), "add of unequal shapes"),
    "as_strided": (lambda net, x: x.as_strided((1, 4, 6, 6), (144, 36, 1, 6)), "as_strided"),
    "circular padding": (lambda net, x: F.pad(x, (1, 1, 1, 1), mode="circular"), "copy"),
    "copy": (lambda net, x: torch.zeros_like(x).copy_(x), "copy"),
    "buffer": (write_buffer, "copy"),
    "buffer behind a view": (write_buffer_seen_through_a_view, "copy_ through another view"),
    "buffer slice": (write_buffer_slice, "copy_ through another view"),
    "fill of a view": (fill_view, "fill_ through another view"),
    "relu on a view": (relu_on_view, "relu_ through another view"),
    "relu behind a view": (relu_behind_view, "relu_ through another view"),
    "relu behind a flat view": (relu_behind_flat_view, "relu_ through another view"),
    "relu on data": (relu_on_data, "relu_ through another view|detach"),
    "data": (lambda net, x: x.data, "detach"),
    "detach": (lambda net, x: x.detach(), "detach"),
    "out": (out_variant, "mul"),
    "out over itself": (out_over_itself, "clamp"),
    "foreach": (foreach, "_foreach_mul"),
    "foreach list": (foreach_list, "_foreach_abs"),
    "autograd function": (custom_function, "sign"),
    "scripted": (lambda net, x: scripted_gelu(x), "gelu"),
    "custom operation": (lambda net, x: impostor(x), "zflib_tests::relu"),
    "item": (lambda net, x: x * x.max().item(), "max|_local_scalar_dense"),
    "decision": (lambda net, x: x if x.mean() > 0 else -x, "_local_scalar_dense"),
    "numpy": (lambda net, x: x + torch.from_numpy(np.maximum(x.numpy(), 0)), "numpy"),
    "array": (lambda net, x: x + torch.from_numpy(np.asarray(x) * 2), "__array__|numpy"),
    "list": (lambda net, x: x + torch.tensor(x.tolist()).to(x), "tolist"),
    "complex": (lambda net, x: torch.fft.ifft2(torch.fft.fft2(x)).real, "fft|_to_copy"),
    "integers": (lambda net, x: x.long().double(), "_to_copy"),
    "bits": (lambda net, x: x.view(torch.int64).view(torch.float64), "view|detach"),
    "wider": (lambda net, x: x.float() + x, "float32"),
    "quantised": (lambda net, x: torch.fake_quantize_per_tensor_affine(x.float(), 0.1, 0, 0, 9).double(), "quantize"),
    "einsum of itself": (lambda net, x: torch.einsum("nchw,nchw->nchw", x, x), "mul"),
    "attention": (lambda net, x: F.scaled_dot_product_attention(x, x, x), "attention|mul|matmul|bmm|expand"),
    "unseen": (unseen, "unseen"),
    "scaled addmm": (scaled_addmm, "addmm"),
}  # fmt: skip


@pytest.mark.parametrize("name", BODIES)
def test_operations_without_a_rule_are_refused_by_name(name):
    body, called = BODIES[name]
    net, images = network(body)
    for rule in oracle.RULES:
        for call in ("project", "project_all"):
            with pytest.raises(Unsupported, match=called) as caught:
                given = (images, "last", 0) if call == "project" else (images[0], "last")
                getattr(Deconvnet(net, rule=rule), call)(*given)
            assert str(caught.value).startswith("net: it ")
    below = Deconvnet(net).project(images, "conv", 1)  # what is before it still works
    oracle.close(below, oracle.project(net, images, "conv", [1]))
    assert not net.buffer.any()


@pytest.mark.parametrize("name", [n for n in BODIES if "batch" in n or n == "mask"])
def test_refused_for_several_images_too(name):
    body, called = BODIES[name]
    with contextlib.suppress(RuntimeError):  # some do not run with two images
        net, images = network(body, n=2)
        with pytest.raises(Unsupported, match=called):
            Deconvnet(net).project(images, "last", 0)


def test_refused_even_if_the_unit_is_silent():
    net, images = network(lambda net, x: F.gelu(x))
    nn.init.zeros_(net.last.weight), nn.init.zeros_(net.last.bias)
    with pytest.raises(Unsupported, match="'gelu'"):
        Deconvnet(net).project(images, "last", 0)


def test_refused_with_the_module_it_happened_in():
    class Inner(nn.Module):
        def forward(self, x):
            return F.gelu(x)

    net, images = network(lambda net, x: net.part(x), nn.Sequential(nn.Conv2d(4, 4, 1), Inner()))
    with pytest.raises(Unsupported, match=r"uses 'gelu' in module 'part.1' \(Inner\), for which"):
        Deconvnet(net).project(images, "last", 0)
    net, images = network(lambda net, x: F.gelu(net.part(x)), nn.Conv2d(4, 4, 1))
    with pytest.raises(Unsupported, match="uses 'gelu', for which"):  # in the network itself, not in its last module
        Deconvnet(net).project(images, "last", 0)


def test_dropout_in_earnest_is_the_drawn_mask_for_one_image_and_refused_for_several():
    for n in (1, 2):
        net, images = network(lambda net, x: F.dropout(x, 0.5, training=True), n=n)
        torch.manual_seed(5)
        with pytest.raises(Unsupported, match="mul") if n == 2 else contextlib.nullcontext():
            ours = Deconvnet(net).project(images, "last", 0, positions=(2, 2))
            torch.manual_seed(5)
            oracle.close(ours, oracle.project(net, images, "last", [0], positions=[(2, 2)]))


def test_a_branch_beside_the_way_may_hold_anything():
    def body(net, x):
        net.kept = F.gelu(x).detach().sigmoid()
        return x.relu()

    net, images = network(body)
    oracle.close(Deconvnet(net).project(images, "last", 0), oracle.project(net, images, "last", [0]))


NORMS = [nn.LayerNorm(6), nn.GroupNorm(2, 4), nn.InstanceNorm2d(4), nn.BatchNorm2d(4, track_running_stats=False)]


@pytest.mark.parametrize("norm", NORMS, ids=lambda m: type(m).__name__)
def test_norms_of_the_data_are_refused_where_they_are_on_the_way(norm):
    net, images = network(lambda net, x: net.part(x), norm)
    with pytest.raises(Unsupported, match=rf"in module 'part' \({type(norm).__name__}\)"):
        Deconvnet(net).project(images, "last", 0)
    assert Deconvnet(net).project(images, "conv", 0).any()


def test_a_subclass_of_response_norm_is_not_skipped():
    class Mine(nn.LocalResponseNorm):
        def forward(self, x):
            return F.gelu(super().forward(x))

    net, images = network(lambda net, x: net.part(x), Mine(3))
    with pytest.raises(Unsupported):
        Deconvnet(net).project(images, "last", 0)


def test_a_hook_that_changes_the_response_norm_is_seen():
    net, images = network(lambda net, x: net.part(x), nn.LocalResponseNorm(3))
    assert Deconvnet(net).project(images, "last", 0).any()
    net.part.register_forward_hook(lambda m, i, o: F.gelu(o))
    with pytest.raises(Unsupported, match="gelu"):
        Deconvnet(net).project(images, "last", 0)


def test_response_norm_called_by_keyword():
    net, images = network(lambda net, x: net.part(input=x), nn.LocalResponseNorm(3))
    expected = oracle.project(nn.Sequential(net.conv, net.part, net.last), images, "2", [0])
    oracle.close(Deconvnet(net).project(images, "last", 0), expected)


def test_state_from_an_earlier_image_is_a_constant_then():
    """Tensors kept from an earlier call do not carry places of that call's tape into the next."""

    def body(net, x):
        kept = getattr(net, "kept", None)
        net.kept = x.relu()
        return net.kept if kept is None else net.kept + kept

    net, images = network(body)
    d = Deconvnet(net)
    first = d.project(images, "last", 0, positions=(2, 2))
    assert first.any()
    assert all(not isinstance(step, Add) or len(step.inputs) == 1 for step in d.record(images + 1, "last").steps)


# --- how a network is called ----------------------------------------------------------------------------------------


def test_a_module_used_twice_is_taken_at_its_first_use():
    net, images = network(lambda net, x: net.part(net.part(x)), nn.Conv2d(4, 4, 1))
    oracle.close(Deconvnet(net).project(images, "part", 0), oracle.project(net, images, "part", [0]))
    oracle.close(Deconvnet(net).project(images, "last", 0), oracle.project(net, images, "last", [0]))


def test_a_layer_that_takes_no_part():
    net, images = network(lambda net, x: x, nn.Conv2d(4, 4, 1))
    with pytest.raises(
        ValueError, match="layer 'part' took no part in the forward pass; choose a layer that the network uses"
    ):
        Deconvnet(net).project(images, "part", 0)


class Several(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.conv, self.last, self.kind = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 1), kind

    def forward(self, x):
        return self.kind(self.last(self.conv(x).relu()))


class Outer(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.several = Several(kind)

    def forward(self, x):
        return self.several(x)


@pytest.mark.parametrize(
    "kind", [lambda x: (x, 2), lambda x: {"out": x}, lambda x: None, lambda x: x > 0, lambda x: torch.ones(1, 2)]
)
def test_layers_that_give_no_maps(kind):
    images = torch.randn(1, 3, 6, 6)
    with pytest.raises(Unsupported, match="layer 'several' does not give a tensor"):
        Deconvnet(Outer(kind)).project(images, "several", 0)
    assert Deconvnet(Outer(kind)).project(images, "several.last", 0).any()


def test_layers_that_give_neither_maps_nor_units():
    with pytest.raises(Unsupported, match=r"layer 'several' gives \(1, 2, 16\); a deconvnet starts from maps"):
        Deconvnet(Outer(lambda x: x.flatten(2))).project(torch.randn(1, 3, 6, 6), "several", 0)


def test_data_parallel():
    net, images = network(lambda net, x: x.relu())
    wrapped = nn.DataParallel(net)
    oracle.close(Deconvnet(wrapped).project(images, "module.last", 0), oracle.project(net, images, "last", [0]))


def test_a_network_that_catches_exceptions():
    class Catches(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.last = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 1)

        def forward(self, x):
            try:
                x = self.conv(x)
            except Exception:
                x = torch.zeros(1, 4, 4, 4)
            return self.last(x)

    assert Deconvnet(Catches()).project(torch.randn(1, 3, 6, 6), "conv", 0).any()


def test_graph_modules():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Conv2d(4, 2, 2))
    images = torch.randn(1, 3, 6, 6)
    traced = torch.fx.symbolic_trace(net)
    oracle.close(Deconvnet(traced).project(images, "2", 0), oracle.project(net, images, "2", [0]))


def test_a_network_without_weights():
    net, images = nn.Sequential(nn.MaxPool2d(2), nn.ReLU()), torch.randn(1, 3, 6, 6)
    oracle.close(Deconvnet(net).project(images, "1", 2), oracle.project(net, images, "1", [2]))


def test_an_integer_network():
    class Integers(nn.Module):
        def forward(self, x):
            return (x * 10).round().to(torch.int32)

    net = nn.Sequential(Integers(), nn.Identity())
    with pytest.raises(Unsupported, match="layer '1' does not give a tensor of numbers computed from the images"):
        Deconvnet(net).project(torch.randn(1, 3, 6, 6), "1", 0)


# --- the record itself ----------------------------------------------------------------------------------------------


def test_the_steps_of_a_small_network():
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        zflib.models.response_norm.ResponseNorm(),
        nn.Flatten(),
        nn.Linear(16, 2),
    )
    tape = record(net, torch.randn(1, 3, 6, 6), "5")
    kinds = [type(tape.steps[place]).__name__ for place in tape.used()]
    assert kinds == ["Image", "Filter", "Rectify", "Pool", "Pass", "Reshape", "FullyConnected"]
    assert tape.steps[2].mask is None
    masked = record(net, torch.randn(1, 3, 6, 6), "1", masks=True)
    assert torch.equal(masked.steps[2].mask, masked.activations > 0)


# --- steps that are computed again ----------------------------------------------------------------------------------


def squeeze_and_excite(net, x):
    return x * x.mean((2, 3), keepdim=True).sigmoid()


@torch.no_grad()
@pytest.mark.parametrize("name", ["gelu", "leaky_relu in place", "hardtanh", "sigmoid_", "gate", "silu", "prelu", "pow",
                                  "clamp_", "where", "mask as numbers", "squeeze and excite"])  # fmt: skip
def test_what_a_deconvnet_refuses_can_still_be_computed_again(name):
    net, images = network(BODIES[name][0] if name in BODIES else squeeze_and_excite)
    assert oracle.replay(net, images, "conv") >= 1


NEVER_AGAIN = {
    "drawn anew": lambda net, x: F.dropout(x, 0.5, training=True),
    "the batch's statistics": lambda net, x: F.batch_norm(x, None, None, training=True),
    "a constant for each image": lambda net, x: x + torch.ones(2, 1, 1, 1).to(x),
    "a constant for each position": lambda net, x: x - torch.arange(36.0).to(x).view(6, 6),
    "a gain for each column": lambda net, x: x * torch.arange(6.0).to(x),
    "images moved": lambda net, x: x.transpose(0, 1).transpose(0, 1),
    "images in channels": lambda net, x: x.reshape(1, 8, 6, 6).relu().reshape(x.shape),
    "what an operation leaves behind": lambda net, x: F.max_pool2d(x, 2, return_indices=True)[1].to(x),
    "changed through a view": fill_view,
}


@pytest.mark.parametrize("name", NEVER_AGAIN)
def test_what_cannot_be_computed_again(name):
    net, images = network(NEVER_AGAIN[name], n=2)
    tape = record(net, images, "conv", whole=True)
    assert any(tape.steps[place].again is None for place in tape.used(len(tape.steps) - 1) if place)


def test_maps_that_move_have_no_window():
    net, images = network(lambda net, x: squeeze_and_excite(net, torch.cat([x, x.transpose(2, 3).flip(2)], 2)))
    tape = record(net, images, "last")
    assert [type(step).__name__ for step in tape.steps if step.window is None and step.inputs] == [
        "OtherLinear", "OtherLinear", "Cat", "OtherLinear", "Refused"]  # fmt: skip
    assert tape.steps[1].window == Window((3, 3), padding=(1, 1))


def test_a_whole_record_ends_with_the_networks_output():
    class Two(Around):
        def forward(self, x):
            out = self.conv(x).flatten(1)
            self.kept = super().forward(x).relu()
            return out

    net = Two(lambda net, x: x)
    images = torch.randn(1, 3, 6, 6)
    net(images)
    tape = record(net, images, "last", whole=True)
    torch.testing.assert_close(tape.scores, net(images).detach())
    torch.testing.assert_close(tape.activations.relu(), net.kept.detach())
    assert tape.steps[-1].shape == tape.scores.shape and tape.steps[tape.place].shape == tape.activations.shape
    net.forward = lambda x: {"out": Two.forward(net, x)}
    assert record(net, images, "last", whole=True).scores.keys() == {"out"}
