"""Where does the drop lie? Figure 7 drawn, and what a sceptic asks of its maps."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from .. import _files, show
from .._arguments import check_sides, conv_layers
from ..data import Windows
from ..data.image_source import images_of
from ..deconv import Deconvnet
from ..experiments.occlusion import OcclusionMaps, occlude

#: Blue, orange, green, pink, told apart by the colour-blind; grey is for all others.
COLOURS = np.array([[0, 114, 178], [230, 159, 0], [0, 158, 115], [204, 121, 167], [200, 200, 200]], np.uint8)
PANELS = ("(a) image", "(b) activity lost", "(c) projection", "(d) p lost", "(e) most probable")
AGREEMENT = _files.SHIPPED / "occlusion-agreement.json"


# --- does the drop lie on the object? --------------------------------------------------------------------------------


def to_pixels(values: torch.Tensor, corners: torch.Tensor, *, size, shape) -> torch.Tensor:
    """(H,W): every pixel is the mean of `values` (rows,cols) over the squares that cover it, 0 where none does.

    `corners` (rows,cols,2) and `size`, pixels or (rows, columns), as in `zflib.occlude`; `shape` is (H,W). Of a drop,
    it is captum's Occlusion map, except that captum's last squares hang over the edge where a stride does not fit.
    """
    height, width = check_sides("size", size, shape)
    if corners.shape != (*values.shape, 2):
        raise ValueError(f"corners must be {(*values.shape, 2)} for values {tuple(values.shape)}, "
                         f"got {tuple(corners.shape)}; both come from one `occlude`")  # fmt: skip
    total, count = torch.zeros(2, *shape, dtype=torch.float64)  # on the CPU: MPS has no doubles
    for value, (top, left) in zip(values.flatten().tolist(), corners.flatten(0, -2).tolist()):
        total[top : top + height, left : left + width] += value
        count[top : top + height, left : left + width] += 1
    return (total / count.clamp(min=1)).float().to(values.device)


def energy_in_mask(drop: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """(…,): the share of all that was taken away in `drop` (…,H,W) that lies inside `mask` (…,H,W) bool.

    Where a square raised the value, the drop is negative and counts as none; NaN if there is no drop at all. A drop
    that is everywhere the same has the mask's share of the picture. The energy-based pointing game of Wang and others,
    "Score-CAM" (2020).
    """
    taken = drop.clamp(min=0)
    return (taken * mask).sum(dim=(-2, -1)) / taken.sum(dim=(-2, -1))


def discs(masks: torch.Tensor) -> torch.Tensor:
    """(N,H,W) bool: for each of the masks (N,H,W) a disc in the middle of the picture that has as many pixels.

    The share of a drop in it is what a map gets that knows an object's size, and that objects stand in the middle.
    """
    height, width = masks.shape[-2:]
    rows, columns = (torch.arange(n, device=masks.device) - (n - 1) / 2 for n in (height, width))
    distance = rows[:, None] ** 2 + columns**2
    rank = distance.flatten().argsort(stable=True).argsort().view(height, width)  # 0 for the innermost pixel
    return rank < masks.sum(dim=(-2, -1))[:, None, None]


def on_and_disc(pixels: torch.Tensor, masks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(N,), (N,): the share of each drop (N,H,W) on its object, `masks` (N,H,W), and in its disc."""
    return energy_in_mask(pixels, masks), energy_in_mask(pixels, discs(masks))


def compared(pixels: Mapping[str, torch.Tensor], masks: torch.Tensor) -> str:
    """Three lines on two networks, name -> drops (N,H,W) in the same N images: each against its discs, then the two."""
    lines, shares = [], {}
    for name, drops in pixels.items():
        shares[name], disc = on_and_disc(drops, masks)
        words = f"{shares[name].mean():.2f} on the object, {disc.mean():.2f} in its disc"
        lines.append(f"{name}: {words}; {mean_and_error(shares[name] - disc)} more")
    first, second = shares
    gap = shares[second] - shares[first]
    lines.append(f"{second} minus {first}: {mean_and_error(gap)}; above 0 in {(gap > 0).sum()} of {len(gap)}")
    return "\n".join(lines)


def mean_and_error(values: torch.Tensor) -> str:
    """ "0.12 ± 0.03": the mean of (N,) values and its standard error."""
    return f"{values.mean():.2f} ± {values.std() / len(values) ** 0.5:.2f}"


@dataclass
class Drops:
    """N occluded images: `looks`, their maps; `pixels` (N,H,W), what the squares took of the probability there."""

    looks: list[OcclusionMaps]
    pixels: torch.Tensor

    @property
    def largest(self) -> torch.Tensor:
        """(N,) the most probability that one square took."""
        return torch.stack([(look.before[0] - look.probability).max().cpu() for look in self.looks])


def study(net: nn.Module, images: torch.Tensor, labels, *, size, stride, **settings) -> Drops:
    """`occlude` every one of (N,3,H,W) preprocessed images, watching its class in `labels` (N,), then `to_pixels`.

    `settings`: `layer` and `fill` as `occlude` takes them.
    """
    pairs = zip(images, labels, strict=True)
    looks = [occlude(net, image, size=size, stride=stride, label=label, **settings) for image, label in pairs]
    where = {"size": size, "shape": tuple(images.shape[-2:])}
    pixels = [to_pixels(look.before[0] - look.probability, look.corners, **where) for look in looks]
    return Drops(looks, torch.stack(pixels).cpu())


# --- does the projection show where the activity comes from? ---------------------------------------------------------


def under_square(projections: torch.Tensor, size: int, stride: int) -> torch.Tensor:
    """(N,rows,cols): the energy (sum of squares) of (N,3,H,W) projections under the square at every position."""
    energy = projections.square().sum(dim=1, keepdim=True)
    return F.avg_pool2d(energy, size, stride)[:, 0] * size**2


def rank_correlation(one: torch.Tensor, other: torch.Tensor) -> float:
    """Spearman's correlation of two maps of one shape: 1 if they put the positions in the same order; NaN if flat."""
    from scipy.stats import spearmanr  # it takes a second to import

    pair = [values.flatten().cpu().numpy() for values in (one, other)]
    flat = any(np.ptp(values) == 0 for values in pair)
    return float("nan") if flat else float(spearmanr(*pair).statistic)


def agreement(net: nn.Module, images: torch.Tensor, look: OcclusionMaps, *, size: int, stride: int,
              layer: str | None = None) -> torch.Tensor:  # fmt: skip
    """(N,): how well the look's lost activity goes with the projections of its channel from each of (N,3,H,W) images.

    A rank correlation over the positions of the square: activity that is lost there, and energy of the projection
    under it. NaN for an image in which the channel is silent. Give the image that was occluded, and others: the
    projection of another image must agree less if the paper's argument holds.
    """
    layer, lost = layer or conv_layers(net)[-1], look.before[1] - look.activity
    channels = torch.full((len(images),), look.channel, device=images.device)
    energy = under_square(Deconvnet(net).project(images, layer, channels), size, stride)
    return torch.tensor([rank_correlation(one, lost) for one in energy])


def strangers(net: nn.Module, windows: Windows, without: str, look: OcclusionMaps, *, count: int = 100, seed: int = 0,
              **where) -> torch.Tensor:  # fmt: skip
    """(count,): the `agreement` of windows of all pictures but `without`, drawn at random until so many are active.

    `where`: `size`, `stride` and `layer` as in `agreement`. Fewer if there are no more.
    """
    others = (windows.pictures != windows.names.index(without)).nonzero().flatten()
    others = others[torch.randperm(len(others), generator=torch.Generator().manual_seed(seed))]
    found, device = torch.zeros(0), next(net.parameters()).device
    for some in others.split(25):
        new = agreement(net, images_of(net, windows.pixels, some).to(device), look, **where)
        found = torch.cat([found, new[~new.isnan()]])
        if len(found) >= count:
            break
    return found[:count]


def load_agreement(network: str, others: str = "others") -> dict[str, tuple[float, torch.Tensor]]:
    """Photograph -> (its own `agreement`, that of a hundred `strangers`), as shipped for "squeezenet" or "zfnet56".

    `others="wholes"`: instead of the strangers, which are windows, every other photograph in which the channel is
    active, taken whole like the photograph itself.
    """
    found = json.loads(AGREEMENT.read_text(encoding="utf-8"))["networks"]
    if network not in found:
        raise ValueError(f"network {network!r} was not measured; choose one of {', '.join(found)}")
    rows = found[network]["photographs"]
    return {name: (row["own"], torch.tensor(row[others])) for name, row in rows.items()}


def percentile(own: float, others: torch.Tensor) -> float:
    """Of a hundred strangers, how many agree less."""
    return 100 * float((others < own).float().mean())


# --- the drawing -----------------------------------------------------------------------------------------------------


def figure7(net: nn.Module, image: torch.Tensor, look: OcclusionMaps, axes: Sequence[show.Axes], *, size: int,
            together: tuple | None = None, layer: str | None = None) -> None:  # fmt: skip
    """One row of Figure 7 on five `axes`: image, activity lost, projection, probability lost, most probable class.

    `together`: (title, before, (rows,cols)) of what (d) shows instead of the watched class.
    """
    draw_activity(net, image, look, axes[:3], size=size, layer=layer)
    title, before, values = together or (net.classes[look.label], look.before[0], look.probability)
    full = max(before - float(values.min()), 1e-12)  # the largest loss is dark red
    where = {"corners": look.corners, "size": size, "net": net, "full": full, "what": ""}
    show.drop(image, before, values, ax=axes[3], title=title, **where)
    class_map(net, image, look, axes[4], size=size)
    for ax, panel in zip(axes, PANELS):
        ax.set_title(f"{panel}\n{ax.get_title()}", fontsize=10)


def draw_activity(net: nn.Module, image: torch.Tensor, look: OcclusionMaps, axes: Sequence[show.Axes], *, size: int,
                  layer: str | None = None, what: str = "") -> None:  # fmt: skip
    """On three `axes` the image, the share of the watched map's activity that squares take, and its projection.

    `what` labels the colour bar.
    """
    layer = layer or conv_layers(net)[-1]
    deconvnet = Deconvnet(net)
    projection = deconvnet.project(image[None], layer, look.channel)[0]
    share, title = look.activity / look.before[1], f"channel {look.channel}"
    show.photo(image, axes[0], net=net)
    show.drop(image, 1, share, corners=look.corners, size=size, net=net, ax=axes[1], title=title, what=what)
    tile = show.projection_tile(projection, 400, sigma=image.shape[-1] / 100)
    value = float(deconvnet.activations(image[None], layer)[0, look.channel].max())
    show.photo(tile, axes[2], title=f"activation {value:.3g}")


def class_map(net: nn.Module, image: torch.Tensor, look: OcclusionMaps, ax: show.Axes, *, size: int) -> show.Axes:
    """Panel (e): the most probable class at each position over the pale image; the four most frequent are named."""
    kinds, counts = look.prediction.cpu().unique(return_counts=True)
    order = kinds[counts.argsort(descending=True, stable=True)][:4].tolist()
    index = np.full(look.prediction.shape, 4)
    for rank, kind in enumerate(order):
        index[look.prediction.cpu().numpy() == kind] = rank
    image = show.image_pixels(image, net)
    pale = 127 + show.image_pixels(Image.fromarray(image).convert("L")) // 2
    ax.imshow(pale, interpolation="bilinear")
    ax.imshow(COLOURS[index], extent=_extent(look.corners, size), alpha=0.75)
    ax.set(xlim=(-0.5, image.shape[1] - 0.5), ylim=(image.shape[0] - 0.5, -0.5))
    ax.set_axis_off()
    for rank, kind in enumerate(order):
        place = {"transform": ax.transAxes, "va": "top", "fontsize": 11}
        ground = tuple(COLOURS[rank] / 255)
        box = {"facecolor": ground, "edgecolor": "white", "boxstyle": "square,pad=0.2"}
        ax.text(0.03, 0.97 - 0.14 * rank, net.classes[kind], bbox=box, color=show.black_or_white(ground), **place)
    return ax


def _extent(corners: torch.Tensor, size: int) -> list[float]:
    """Left, right, bottom, top of a map, each position drawn about its square's middle, half a stride around it."""
    ends = []
    for starts in (corners[0, :, 1], corners[:, 0, 0]):
        reach = float(starts[-1] - starts[0]) / max(len(starts) - 1, 1) / 2
        ends.append((float(starts[0]) + (size - 1) / 2 - reach, float(starts[-1]) + (size - 1) / 2 + reach))
    (left, right), (top, bottom) = ends
    return [left, right, bottom, top]


def outlined(image, pixels: torch.Tensor, masks: Sequence[torch.Tensor], ax: show.Axes, *, net=None,
             full: float | None = None) -> show.Axes:  # fmt: skip
    """A drop by pixel (H,W), white to red over the pale (3,H,W) image, and the outlines of `masks` (H,W) in black.

    Dark red is `full`, by default the largest drop; a second mask is drawn dashed.
    """
    height, width = pixels.shape
    corners = torch.stack(torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij"), dim=-1)
    full = full or max(float(pixels.max()), 1e-12)
    drawn = show.drop_pixels(image, pixels, corners=corners, size=1, full=full, net=net)
    ax.imshow(drawn, extent=(-0.5, width - 0.5, height - 0.5, -0.5), interpolation="bilinear")
    for mask, line in zip(masks, ("solid", "dashed")):
        ax.contour(mask.cpu().float().numpy(), levels=[0.5], colors="black", linewidths=1.8, linestyles=line)
    ax.set_axis_off()
    return ax


def plot_agreement(found: dict, ax: show.Axes, wholes: dict | None = None) -> show.Axes:
    """What `load_agreement` gives: a row for each photograph, a grey line for each stranger, its own as a diamond.

    `wholes`, the same with `others="wholes"`: each other photograph as a black ring.
    """
    rows = sorted(found, key=lambda name: percentile(*found[name]))
    for height, name in enumerate(rows):
        own, others = found[name]
        ax.plot(others, [height] * len(others), "|", color="0.55", markersize=13)
        ax.plot(own, height, "D", color="#d55e00", markersize=9, markeredgecolor="white")
        words = f"above {percentile(own, others):.0f} of 100"
        if wholes:
            rings = wholes[name][1]
            ax.plot(rings, [height] * len(rings), "o", color="black", markersize=7, markerfacecolor="none")
            words += f", {int((rings < own).sum())} of {len(rings)}"
        ax.text(1.05, height, words, va="center")
    ax.set(yticks=range(len(rows)), yticklabels=rows, xlim=(-1, 1.03), ylim=(-0.6, len(rows) - 0.4))
    ax.set_xlabel(
        "rank correlation of lost activity with a projection: its own (orange),\n"
        + ("another photograph's: a window (grey), all of it (ring)" if wholes else "another photograph's (grey)")
    )
    return ax


def plot_shares(on: torch.Tensor, disc: torch.Tensor, names: Sequence[str], ax: show.Axes) -> show.Axes:
    """For N scenes the share of the drop on the object (N,) over that in its disc (N,); the extremes bear `names`."""
    ax.plot([0, 1], [0, 1], color="0.6", lw=1)
    ax.scatter(disc, on, s=36, c=["#d55e00" if one > other else "#0072b2" for one, other in zip(on, disc)])
    order = (on - disc).argsort().tolist()
    for number in (*order[:3], *order[-3:]):
        ax.annotate(names[number], (float(disc[number]), float(on[number])), xytext=(6, 4), textcoords="offset points")
    above = int((on > disc).sum())
    ax.set_title(f"{above} scenes above the line, {len(on) - above} not")
    ax.set(xlabel="share of the drop in the disc", ylabel="share on the object", xlim=(0, 1.02), ylim=(0, 1.02))
    ax.set_aspect("equal")
    return ax
