"""Places boxes of a directed graph in columns from left to right, so that few lines cross and chains run straight.

Layers by longest path, order by barycentres, heights by isotonic regression: the usual layered drawing (K. Sugiyama and
others, 1981), in plain Python. Numbers in, numbers out; nothing here knows what the boxes mean.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

__all__ = ["Layout", "Point", "layout"]

Point = tuple[float, float]
_SWEEPS = 12  # of ordering and of placing; more changed no picture that was looked at
_LINE_HEIGHT = 10.0  # room for a line that passes a column between two boxes
_STRAIGHT = 8.0  # how much more a long line's own course weighs than a box's wish to sit amid its neighbours


@dataclass(frozen=True)
class Layout:
    """Centres of the boxes, and for each edge the points it runs through, from box border to box border."""

    width: float
    height: float
    centres: tuple[Point, ...]
    courses: dict[tuple[int, int], tuple[Point, ...]]


def layout(
    sizes: Sequence[Point], edges: Iterable[tuple[int, int]], *, column_gap: float = 70.0, row_gap: float = 14.0
) -> Layout:
    """The places of boxes of those (width, height), numbered as in `sizes`; edges that close a cycle run backwards.

    Edges from a box to itself get no course. The same input gives the same picture.
    """
    links = [(source, target) for source, target in dict.fromkeys(edges) if source != target]
    layer = _layers(len(sizes), _acyclic(len(sizes), links))
    chains, layer_of, heights = _chains(links, layer, [height for _, height in sizes])
    columns = _ordered(layer_of, chains)
    ys = _placed(columns, chains, heights, row_gap, len(sizes))
    widths = [max((sizes[n][0] for n in column if n < len(sizes)), default=0.0) for column in columns]
    xs = [sum(widths[:at]) + column_gap * at + width / 2 for at, width in enumerate(widths)]
    centres = tuple((xs[layer_of[number]], ys[number]) for number in range(len(sizes)))
    courses = {link: _course(chain, sizes, layer_of, xs, widths, ys) for link, chain in zip(links, chains, strict=True)}
    height = max((ys[n] + heights[n] / 2 for n in range(len(ys))), default=0.0)
    return Layout(sum(widths) + column_gap * max(0, len(columns) - 1), height, centres, courses)


def _acyclic(count: int, links: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The links with those turned round that a depth-first walk finds to lead back."""
    children: list[list[int]] = [[] for _ in range(count)]
    has_parent = [False] * count
    for source, target in links:
        children[source].append(target)
        has_parent[target] = True
    state = [0] * count  # 0 not met, 1 on the way, 2 done
    backward: set[tuple[int, int]] = set()
    for root in sorted(range(count), key=lambda number: has_parent[number]):
        stack = [(root, iter(children[root]))] if not state[root] else []
        state[root] = state[root] or 1
        while stack:
            number, following = stack[-1]
            child = next(following, None)
            if child is None:
                state[number] = 2
                stack.pop()
            elif state[child] == 1:
                backward.add((number, child))
            elif not state[child]:
                state[child] = 1
                stack.append((child, iter(children[child])))
    return [(target, source) if (source, target) in backward else (source, target) for source, target in links]


def _layers(count: int, links: list[tuple[int, int]]) -> list[int]:
    """The column of each box: right of all its parents; a box without parents stands right before its first child."""
    parents: list[list[int]] = [[] for _ in range(count)]
    children: list[list[int]] = [[] for _ in range(count)]
    for source, target in links:
        children[source].append(target)
        parents[target].append(source)
    waiting = [len(above) for above in parents]
    order = [number for number in range(count) if not waiting[number]]
    layer = [0] * count
    for number in order:
        for child in children[number]:
            layer[child] = max(layer[child], layer[number] + 1)
            waiting[child] -= 1
            if not waiting[child]:
                order.append(child)
    for number in order:
        if not parents[number] and children[number]:
            layer[number] = min(layer[child] for child in children[number]) - 1
    return layer


def _chains(
    links: list[tuple[int, int]], layer: list[int], box_heights: list[float]
) -> tuple[list[list[int]], list[int], list[float]]:
    """For each link the numbers it runs through, left to right: its ends and a new number in each column between.

    Lines that leave one box share their way as far as it goes: one line that forks is easier to follow than many.
    """
    layer_of, heights = list(layer), list(box_heights)
    shared: dict[tuple[int, int], int] = {}
    chains = []
    for source, target in links:
        left, right = (source, target) if layer[source] < layer[target] else (target, source)
        chain = [left]
        for column in range(layer[left] + 1, layer[right]):
            if (left, column) not in shared:
                shared[left, column] = len(layer_of)
                layer_of.append(column)
                heights.append(_LINE_HEIGHT)
            chain.append(shared[left, column])
        chains.append([*chain, right])
    return chains, layer_of, heights


def _ordered(layer_of: list[int], chains: list[list[int]]) -> list[list[int]]:
    """The columns, each from top to bottom, in the order with the fewest crossings that the sweeps came by."""
    before, after = _neighbours(len(layer_of), chains)
    columns: list[list[int]] = [[] for _ in range(max(layer_of, default=-1) + 1)]
    for number in _depth_first(len(layer_of), before, after):
        columns[layer_of[number]].append(number)
    best, fewest = [list(column) for column in columns], _crossings(columns, after)
    for sweep in range(_SWEEPS):
        rightwards = sweep % 2 == 0
        for at in range(1, len(columns)) if rightwards else range(len(columns) - 2, -1, -1):
            beside = columns[at - 1] if rightwards else columns[at + 1]
            position = {number: float(place) for place, number in enumerate(beside)}
            _sort_by_neighbours(columns[at], position, before if rightwards else after)
        crossings = _crossings(columns, after)
        if crossings < fewest:
            best, fewest = [list(column) for column in columns], crossings
    return best


def _depth_first(count: int, before: list[list[int]], after: list[list[int]]) -> list[int]:
    """All numbers as a walk from the left meets them, so that what hangs together starts out side by side."""
    met: dict[int, None] = {}
    for root in sorted(range(count), key=lambda number: bool(before[number])):
        waiting = [root]
        while waiting:
            number = waiting.pop()
            if number not in met:
                met[number] = None
                waiting.extend(reversed(after[number]))
    return list(met)


def _neighbours(count: int, chains: list[list[int]]) -> tuple[list[list[int]], list[list[int]]]:
    before: list[list[int]] = [[] for _ in range(count)]
    after: list[list[int]] = [[] for _ in range(count)]
    for left, right in dict.fromkeys(step for chain in chains for step in pairwise(chain)):
        after[left].append(right)
        before[right].append(left)
    return before, after


def _sort_by_neighbours(column: list[int], position: dict[int, float], neighbours: list[list[int]]) -> None:
    """Sorts a column by the mean place of each one's neighbours; what has none keeps its place."""
    wished = {}
    for place, number in enumerate(column):
        places = [position[other] for other in neighbours[number]]
        wished[number] = sum(places) / len(places) if places else float(place)
    column.sort(key=wished.__getitem__)


def _crossings(columns: list[list[int]], after: list[list[int]]) -> int:
    """Count the pairs of lines that cross between neighbouring columns."""
    count = 0
    for column, following in pairwise(columns):
        position = {number: place for place, number in enumerate(following)}
        passed: list[int] = []
        for number in column:
            places = sorted(position[other] for other in after[number])
            count += sum(len(passed) - bisect_left(passed, place + 1) for place in places)
            passed = sorted(passed + places)
    return count


def _placed(
    columns: list[list[int]], chains: list[list[int]], heights: list[float], row_gap: float, boxes: int
) -> list[float]:
    """The height of each number: near its neighbours' mean, in its column's order, none overlapping."""
    before, after = _neighbours(len(heights), chains)
    ys = [0.0] * len(heights)
    for column in columns:
        _spread(column, [0.0] * len(column), [1.0] * len(column), heights, row_gap, ys)
    for sweep in range(2 * _SWEEPS):
        both = sweep >= 2 * _SWEEPS - 2
        for column in columns if sweep % 2 == 0 else reversed(columns):
            wishes, weights = [], []
            for number in column:
                beside = before[number] + after[number] if both else (before if sweep % 2 == 0 else after)[number]
                strength = [_STRAIGHT if number >= boxes and other >= boxes else 1.0 for other in beside]
                total = sum(strength)
                wishes.append(
                    sum(ys[o] * s for o, s in zip(beside, strength, strict=True)) / total if total else ys[number]
                )
                weights.append(total or 0.1)
            _spread(column, wishes, weights, heights, row_gap, ys)
    top = min((ys[number] - heights[number] / 2 for number in range(len(heights))), default=0.0)
    return [y - top for y in ys]


def _spread(
    column: list[int],
    wishes: list[float],
    weights: list[float],
    heights: list[float],
    row_gap: float,
    ys: list[float],
) -> None:
    """Sets `ys` of a column nearest to the wishes by weighted squares, without overlap (pool adjacent violators)."""
    offsets, offset = [], 0.0
    for above, number in zip([None, *column], column, strict=False):
        if above is not None:
            offset += (heights[above] + heights[number]) / 2 + row_gap
        offsets.append(offset)
    blocks: list[tuple[float, float, int]] = []  # (mean wish without offsets, weight, how many)
    for wish, weight, offset in zip(wishes, weights, offsets, strict=True):
        mean, total, count = wish - offset, weight, 1
        while blocks and blocks[-1][0] > mean:
            other_mean, other_total, other_count = blocks.pop()
            mean = (mean * total + other_mean * other_total) / (total + other_total)
            total, count = total + other_total, count + other_count
        blocks.append((mean, total, count))
    means = [mean for mean, _, count in blocks for _ in range(count)]
    for number, mean, offset in zip(column, means, offsets, strict=True):
        ys[number] = mean + offset


def _course(
    chain: list[int], sizes: Sequence[Point], layer_of: list[int], xs: list[float], widths: list[float], ys: list[float]
) -> tuple[Point, ...]:
    """The points of a line from the right border of its left box, straight through each column, to its right box."""
    left, *between, right = chain
    points = [(xs[layer_of[left]] + sizes[left][0] / 2, ys[left])]
    for number in between:
        x, half = xs[layer_of[number]], widths[layer_of[number]] / 2
        points += [(x - half, ys[number]), (x + half, ys[number])]
    return (*points, (xs[layer_of[right]] - sizes[right][0] / 2, ys[right]))
