"""Exercises of notebook 06: the strongest images, different places in a photograph, and what a position sees."""

from functools import partial

import numpy as np
import torch

from .. import data, show
from .cases import case, seeded
from .verdict import Exercise


def strongest_in_one_pass(chunks, k: int) -> torch.Tensor:
    """(C,k) numbers of the k images that excite each channel most, strongest first; an image counts once.

    `chunks`: maps (B,C,h,w) of the first images, of the next ones, and so on; k images at a time are remembered.
    """
    values, numbers, seen = None, None, 0
    for maps in chunks:
        strongest = maps.flatten(2).amax(dim=2).T  # (C,B): of every image its best position
        candidates = torch.arange(seen, seen + len(maps)).expand_as(strongest)  # their numbers
        if seen > 0:
            strongest = torch.cat([values, strongest], dim=1)
            candidates = torch.cat([numbers, candidates], dim=1)
        values, places = strongest.topk(min(k, strongest.shape[1]), dim=1)
        numbers = candidates.gather(1, places)
        seen += len(maps)
    return numbers


@seeded(11)
def _chunks(generator):
    for k, sizes in ((2, (3, 3)), (3, (2, 2, 2))):
        count = sum(sizes)
        numbers = torch.randperm(count * 4 * 2 * 2, generator=generator)  # whole numbers, no two alike
        maps = numbers.view(count, 4, 2, 2).float()
        busy = torch.randperm(count, generator=generator)
        maps[busy[0], :, 0] += 100  # one image takes several of a channel's strongest positions
        maps[busy[1]] += 60  # one answers everywhere a little
        maps[busy[2], :, -1, -1] -= 900  # one has the largest negative values
        yield case(list(maps.split(sizes)), k)


def _strongest(chunks, k, *, score=lambda maps: maps.flatten(2).amax(dim=2), largest=True) -> torch.Tensor:
    """All at once: (C,k) numbers of the images with the largest score (N,C)."""
    return score(torch.cat(list(chunks))).topk(k, dim=0, largest=largest).indices.T


def _several_positions(chunks, k):
    maps = torch.cat(chunks)
    return maps.transpose(0, 1).flatten(1).topk(k, dim=1).indices // maps[0, 0].numel()


def _last_chunk(chunks, k):
    seen = sum(map(len, chunks[:-1]))
    numbers = _strongest(chunks[-1:], min(k, len(chunks[-1]))) + seen
    return torch.cat([numbers, numbers], dim=1)[:, :k]


def _counts_from_zero(chunks, k):
    own = torch.cat([torch.arange(len(maps)) for maps in chunks])
    return own[_strongest(chunks, k)]


def _places_among_candidates(chunks, k):
    best, places = torch.full((chunks[0].shape[1], 0), 0.0), None
    for maps in chunks:
        both = torch.cat([best, maps.flatten(2).amax(dim=2).T], dim=1)
        best, places = both.topk(min(k, both.shape[1]), dim=1)
    return places


def _draw_images(given, answer, target) -> np.ndarray:
    """The first channel in which the answer is wrong, over every image, and that row of the answer and the target."""
    (chunks, _), _ = given
    rows = {} if answer is None else {"yours": torch.as_tensor(answer).detach().cpu()}
    rows |= {"target": target}
    wrong = (next(iter(rows.values())) != target).any(dim=1).nonzero()
    channel = int(wrong[0]) if len(wrong) else 0
    planes, sizes = [maps[channel] for maps in torch.cat(chunks)], [str(len(maps)) for maps in chunks]
    titles = [f"image {number}" for number in range(len(planes))]
    title = f"channel {channel} of {len(planes)} images, which come in chunks of {' + '.join(sizes)}"
    above = show.caption(show.axes_pixels(show.matrices(planes, titles=titles)), title, size=18)
    blank = np.zeros((0, above.shape[1], 3), np.uint8)
    lines = [f"{name}: images {', '.join(f'{n:g}' for n in row[channel].tolist())}" for name, row in rows.items()]
    return np.concatenate([above, *(show.caption(blank, line, size=18) for line in lines)])


top_images = Exercise(
    "top_images", strongest_in_one_pass, _chunks,
    mistakes={
        "one image is there several times, with several of its positions; let each image count once":
            _several_positions,
        "you compared the means of the maps; an image is scored by its largest value":
            partial(_strongest, score=lambda maps: maps.flatten(2).mean(dim=2)),
        "a large negative value is not a strong activation; take the maximum, not the largest size":
            partial(_strongest, score=lambda maps: maps.abs().flatten(2).amax(dim=2)),
        "these are the weakest images; topk gives the largest values, argsort the smallest first":
            partial(_strongest, largest=False),
        "these are images of the last chunk; keep the best so far and let the new ones compete with them": _last_chunk,
        "every chunk begins at image 0 again; count on from the chunks before": _counts_from_zero,
        "topk says where among the candidates; look up which image stands there": _places_among_candidates,
        "these are activations; wanted are the numbers of the images":
            lambda chunks, k: torch.cat(chunks).flatten(2).amax(dim=2).topk(k, dim=0).values.T,
    },
    success="each channel's strongest images, every image once, and never more than k remembered",
    draw=_draw_images,
)  # fmt: skip


# --- different places of one photograph -------------------------------------------------------------------------------

#: What two channels of zfnet56, conv4:64 and conv5:173, see of the cat in their nine strongest windows of it.
_EYES = [
    [78, 126, 162, 210], [62, 126, 138, 210], [45, 117, 171, 243], [45, 92, 171, 207], [81, 117, 189, 243],
    [81, 110, 189, 207], [78, 150, 162, 234], [102, 270, 186, 354], [62, 150, 138, 234],
]  # fmt: skip
_MORE = [
    [81, 297, 207, 387], [56, 297, 171, 387], [200, 225, 279, 315], [92, 272, 171, 351], [206, 198, 258, 282],
    [92, 261, 171, 387], [62, 78, 114, 162], [110, 294, 162, 378], [62, 126, 114, 210],
]  # fmt: skip
#: A row in which each touches the next one only, a small one within a large one, and one far from all in both ways.
_ROW = [
    [100, 20, 180, 100], [100, 60, 180, 140], [100, 100, 180, 180], [100, 140, 180, 220],
    [20, 240, 220, 440], [40, 260, 100, 320], [190, 20, 270, 100], [170, 90, 250, 170],
]  # fmt: skip


def keep_places(boxes: torch.Tensor, overlap: float = 0.2) -> torch.Tensor:
    """(K,) bool: which of K boxes (top, left, bottom, right), strongest first, show a place that none before shows.

    A box goes if the area that it has in common with a kept one, over the area of both together, is above `overlap`.
    """
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)  # (K,)
    kept = torch.zeros(len(boxes), dtype=torch.bool)
    for number, box in enumerate(boxes):
        corner, end = torch.maximum(box[:2], boxes[:, :2]), torch.minimum(box[2:], boxes[:, 2:])
        common = (end - corner).clamp(min=0).prod(dim=1)  # (K,): boxes that lie apart have nothing in common
        shared = common / (areas[number] + areas - common)
        kept[number] = not (kept & (shared > overlap)).any()
    return kept


def _overlap_of(one: torch.Tensor, other: torch.Tensor) -> float:
    """The area that two boxes (4,) have in common over the area that they cover together."""
    corner, end = torch.maximum(one[:2], other[:2]), torch.minimum(one[2:], other[2:])
    common = (end - corner).clamp(min=0).prod()
    return float(common / ((one[2:] - one[:2]).prod() + (other[2:] - other[:2]).prod() - common))


def _overlap_without_clamp(one, other) -> float:
    common = (torch.minimum(one[2:], other[2:]) - torch.maximum(one[:2], other[:2])).prod()
    return float(common / ((one[2:] - one[:2]).prod() + (other[2:] - other[:2]).prod() - common))


def _overlap_of_first(one, other) -> float:
    common = (torch.minimum(one[2:], other[2:]) - torch.maximum(one[:2], other[:2])).clamp(min=0).prod()
    return float(common / (one[2:] - one[:2]).prod())


def _suppressed(boxes, overlap=0.2, *, among="kept", shared=_overlap_of) -> torch.Tensor:
    """As `keep_places`, but compared with all stronger boxes, or with the last one kept, or otherwise measured."""
    kept = torch.zeros(len(boxes), dtype=torch.bool)
    for number, box in enumerate(boxes):
        rivals = {"kept": boxes[kept], "all": boxes[:number], "last": boxes[kept][-1:]}[among]
        kept[number] = all(shared(box, other) <= overlap for other in rivals)
    return kept


def _draw_places(given, answer, target) -> np.ndarray:
    """The boxes on the cat: all of them, those that the answer keeps, and those that should be kept."""
    (boxes, *_), _ = given
    sets = {"all, strongest first": torch.ones(len(boxes), dtype=torch.bool)}
    sets |= {} if answer is None else {"yours": torch.as_tensor(answer).detach().cpu() > 0.5}
    sets |= {"target": target}
    photo, pictures = show.image_pixels(data.photo("chelsea").convert("L")), []  # orange on grey
    for kept in sets.values():
        pixels = photo
        for box in boxes[kept].tolist():
            pixels = show.framed(pixels, box)
        pictures.append(show.upscale(pixels, 340, smooth=True))
    titles = [f"{name}: {int(kept.sum())}" for name, kept in sets.items()]
    return show.beside(pictures, titles, size=18)


different_places = Exercise(
    "different_places", keep_places,
    lambda: [case(torch.tensor(boxes).float()) for boxes in (_EYES, _MORE, _ROW)],
    mistakes={
        "you compared with every stronger box; only a box that was kept can push another one out":
            partial(_suppressed, among="all"),
        "you compared with the last box that was kept; compare with all that were kept":
            partial(_suppressed, among="last"),
        "you divided by the area of one box; divide by the area that both cover together":
            partial(_suppressed, shared=_overlap_of_first),
        "two boxes that lie apart in both directions have no area in common: clamp height and width at 0":
            partial(_suppressed, shared=_overlap_without_clamp),
        "one common pixel is enough for you to leave a box out; some overlap is allowed":
            lambda boxes, overlap=0.2: keep_places(boxes, 0.0),
        "you began with the weakest box; the strongest comes first and always stays":
            lambda boxes, overlap=0.2: keep_places(boxes.flip(0), overlap).flip(0),
        "these are the boxes to leave out; True means keep":
            lambda boxes, overlap=0.2: ~keep_places(boxes, overlap),
        "every box is kept; a box that shows the same place as a stronger one should go":
            lambda boxes, overlap=0.2: torch.ones(len(boxes), dtype=torch.bool),
        "every box was compared with itself as well, and went; compare it with those kept before it":
            lambda boxes, overlap=0.2: torch.zeros(len(boxes), dtype=torch.bool),
    },
    success="the strongest box of every place, and no place twice",
    draw=_draw_places,
)  # fmt: skip


# --- what one position sees: the notebook that goes deeper ------------------------------------------------------------


def trace_back(position, layers) -> torch.Tensor:
    """(4,) top, left, bottom, right (both exclusive) of what one position sees; layers: (kernel, stride, padding)."""
    (top, left), (bottom, right) = position, (position[0] + 1, position[1] + 1)
    for kernel, stride, padding in reversed(layers):  # from the position down to the image
        top, left = top * stride - padding, left * stride - padding
        bottom, right = (bottom - 1) * stride - padding + kernel, (right - 1) * stride - padding + kernel
    return torch.tensor([top, left, bottom, right])


def _draw_box(given, answer, target) -> np.ndarray:
    """The box on the cat, 56 pixels a side."""
    photo = np.asarray(data.photo("chelsea").crop((75, 0, 375, 300)).resize((56, 56)))
    boxes = ({} if answer is None else {"yours": answer}) | {"target": target}
    pictures = [show.framed(show.upscale(photo, 336), [float(edge) for edge in box], scale=6) for box in boxes.values()]
    words = [", ".join(f"{float(edge):g}" for edge in box) for box in boxes.values()]
    return show.beside(pictures, [f"{name}: {box}" for name, box in zip(boxes, words)], size=16)


_STACK = [(7, 2, 3), (3, 2, 0), (5, 1, 2), (3, 2, 0), (3, 1, 1)]  # conv1, pool1, conv2, pool2, conv3 of zfnet56


field_box = Exercise(
    "field_box", trace_back,
    lambda: [case((2, 5), _STACK), case((0, 3), [(5, 3, 1), (3, 2, 1)]), case((4, 1), [(4, 2, 1), (3, 1, 1)])],
    mistakes={
        "the padding is forgotten: each layer moves the box up and left by its padding":
            lambda position, layers: trace_back(position, [(kernel, stride, 0) for kernel, stride, _ in layers]),
        "the layers are taken in the wrong order; begin at the last one and end at the image":
            lambda position, layers: trace_back(position, layers[::-1]),
        "bottom and right are exclusive: one more":
            lambda position, layers: trace_back(position, layers) - torch.tensor([0, 0, 1, 1]),
        "the strides are forgotten: a step of one position is a step of `stride` pixels below it":
            lambda position, layers: trace_back(position, [(kernel, 1, padding) for kernel, _, padding in layers]),
        "rows and columns are exchanged; a position is (row, column), a box begins with its top":
            lambda position, layers: trace_back(position[::-1], layers),
    },
    success="the same box as zflib.receptive_field, padding and strides included",
    draw=_draw_box,
)  # fmt: skip
