"""Where the boxes of a picture stand, and the courses of the lines between them. Numbers in, numbers out."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import accumulate, count, pairwise

import networkx

from crucible_lineage.lineage.view import MOST_BOXES

Point = tuple[float, float]
_SWEEPS = 12  # of ordering and of placing; more changed none of the pictures inspected
_LINE_HEIGHT = 10.0  # height of a line that passes a column between two boxes
_STRAIGHT = 8.0  # weight of straight long lines against boxes centred on their neighbours
_SCREEN = (1400.0, 900.0)  # pixels; a picture that does not fit is shown smaller, and its text too
_GAIN = 0.8  # a picture is wrapped only if it then shrinks so much less, since its lines are longer
_CLEAR = 5  # lines from one band to the next that are easy to follow
_BEND, _TRACK = 16.0, 6.0  # from a band to the first line that leads to the next one, and from that to another


@dataclass(frozen=True)
class Layout:
    """Centres of the boxes, and for each edge its points from box border to box border."""

    width: float
    height: float
    centres: tuple[Point, ...]
    courses: dict[tuple[int, int], tuple[Point, ...]]


def layout(
    sizes: Sequence[Point], edges: Iterable[tuple[int, int]], *, column_gap: float = 70.0, row_gap: float = 14.0
) -> Layout:
    """Arrange boxes, numbered as in `sizes`, the same for equal input; edges that close a cycle run backwards.

    A picture that would be much wider or higher than a screen is wrapped: into several columns for one layer, and into
    bands of columns, one below the other.
    """
    links = [(source, target) for source, target in dict.fromkeys(edges) if source != target]
    layer = _layers(sizes, links, column_gap, row_gap)
    chains, layer_of, heights = _chains(links, layer, [height for _, height in sizes])
    lines: networkx.DiGraph[int] = networkx.DiGraph(step for chain in chains for step in pairwise(chain))
    lines.add_nodes_from(range(len(heights)))
    columns = _order_columns(layer_of, lines)
    ys = _heights(columns, lines, heights, row_gap, len(sizes))
    widths = [max((sizes[n][0] for n in column if n < len(sizes)), default=0.0) for column in columns]
    xs, turns = _bands(columns, lines, widths, ys, heights, column_gap)
    centres = tuple((xs[layer_of[number]], ys[number]) for number in range(len(sizes)))
    courses = {}
    for link, chain in zip(links, chains, strict=True):
        course = _course(chain, sizes, layer_of, xs, widths, ys, turns)
        courses[link] = course if chain[0] == link[0] else course[::-1]
    rights = [*(x + width / 2 for x, width in zip(xs, widths, strict=True)), *(right for right, *_ in turns.values())]
    height = max((ys[n] + heights[n] / 2 for n in range(len(ys))), default=0.0)
    return Layout(max(rights, default=0.0), height, centres, courses)


def _best(choices: Iterable[int], size_of: Callable[[int], Point]) -> int:
    """Return the choice whose picture is shown largest on a screen, or the first one unless that is much better."""
    shrunk = {
        choice: max(1.0, *(side / most for side, most in zip(size_of(choice), _SCREEN, strict=True)))
        for choice in choices
    }
    first, best = next(iter(shrunk)), min(shrunk, key=shrunk.__getitem__)
    return best if shrunk[best] < _GAIN * shrunk[first] else first


def _layers(sizes: Sequence[Point], links: list[tuple[int, int]], column_gap: float, row_gap: float) -> list[int]:
    """Return the column of each box: right of all its parents, or just left of its first child if it has none.

    A column has as many boxes as a screen bears, the outermost of a layer first, so that lines pass in the middle.
    """
    graph: networkx.DiGraph[int] = networkx.DiGraph()
    graph.add_nodes_from(range(len(sizes)))
    graph.add_edges_from(links)
    with suppress(networkx.NetworkXNoCycle):
        while True:
            graph.remove_edge(*networkx.find_cycle(graph)[-1])
    position = {number: place for place, number in enumerate(networkx.topological_sort(graph))}
    for source, target in links:  # some of those in cycles are turned
        graph.add_edge(*((source, target) if position[source] < position[target] else (target, source)))
    generations = [list(generation) for generation in networkx.topological_generations(graph)]
    outwards = [
        sorted(generation, key=lambda number: -abs(2 * generation.index(number) + 1 - len(generation)))
        for generation in generations
    ]
    most = max(map(len, generations), default=1)

    def layered(rows: int) -> list[int]:
        layer, filled = [0] * len(sizes), Counter[int]()
        for number in (number for generation in outwards for number in generation):
            column = 1 + max((layer[parent] for parent in graph.pred[number]), default=-1)
            layer[number] = next(at for at in count(column) if filled[at] < rows)
            filled[layer[number]] += 1
        return layer

    def size_of(rows: int) -> Point:
        width, height = (sum(side) / len(sizes) for side in zip(*sizes, strict=True))
        return (max(layered(rows)) + 1) * (width + column_gap), min(rows, most) * (height + row_gap)

    layer = layered(_best([most, *range(min(most, MOST_BOXES), 0, -1)], size_of) if sizes else 1)
    for number in graph:
        if not graph.pred[number] and graph.succ[number]:
            layer[number] = min(layer[child] for child in graph.succ[number]) - 1
    return layer


def _bands(
    columns: list[list[int]], lines: networkx.DiGraph[int], widths: list[float], ys: list[float],
    heights: list[float], gap: float,
) -> tuple[list[float], dict[int, tuple[float, float, float]]]:  # fmt: skip
    """Divide the columns into bands, one below the other, where few lines cross. Moves `ys` there.

    Returns the middle of each column; and for each number whose lines lead to the next band, where these run: right of
    the band, below it, and left of the next one.
    """
    ends = [0.0, *accumulate(width + gap for width in widths)]
    tops = [min((ys[n] - heights[n] / 2 for n in column), default=0.0) for column in columns]
    bottoms = [max((ys[n] + heights[n] / 2 for n in column), default=0.0) for column in columns]
    crossing = [[number for number in column if lines.succ[number]] for column in columns]
    clear = [at for at in range(1, len(columns)) if len(crossing[at - 1]) <= _CLEAR]

    breaks = _breaks(ends, tops, bottoms, clear) if columns else [0]
    left = max((_BEND + _TRACK * len(crossing[at - 1]) for at in breaks[1:-1]), default=0.0)
    xs, turns, top = list[float](), dict[int, tuple[float, float, float]](), 0.0
    for first, end in pairwise(breaks):
        band, right = [number for column in columns[first:end] for number in column], left
        above = min(tops[first:end])
        below = max(bottoms[first:end]) - above + top
        for number in band:
            ys[number] += top - above
        for width in widths[first:end]:
            xs.append(right + width / 2)
            right += width + gap
        leaving = crossing[end - 1] if end < len(columns) else []
        for at, number in enumerate(reversed(leaving)):  # as nested lines, which do not cross
            out = _BEND + _TRACK * at
            turns[number] = (right - gap + out, below + out, left - _BEND - _TRACK * (len(leaving) - 1 - at))
        top = below + 2 * _BEND + _TRACK * len(leaving)
    return xs, turns


def _breaks(ends: list[float], tops: list[float], bottoms: list[float], clear: list[int]) -> list[int]:
    """Return where bands begin, and the end of the last one, by the number of bands that suits a screen best."""
    columns = len(tops)

    def breaks_of(most: int) -> list[int]:
        ideal = (ends[-1] / most * number for number in range(1, most))
        return sorted({0, columns, *(min(clear, key=lambda at: abs(ends[at] - end)) for end in ideal if clear)})

    def size_of(most: int) -> Point:
        bands = list(pairwise(breaks_of(most)))
        height = sum(max(bottoms[start:end]) - min(tops[start:end]) for start, end in bands)
        return max(ends[end] - ends[start] for start, end in bands), height + 2 * _BEND * (len(bands) - 1)

    return breaks_of(_best(range(1, max(2, min(columns, MOST_BOXES))), size_of))


def _chains(
    links: list[tuple[int, int]], layer: list[int], box_heights: list[float]
) -> tuple[list[list[int]], list[int], list[float]]:
    """Return each link's numbers from left to right; lines from one box share new ones in the columns between."""
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


def _first_order(layer_of: list[int], lines: networkx.DiGraph[int]) -> list[list[int]]:
    """Return the columns in the order of a walk from the roots, the longest way in the middle of its neighbours."""
    roots_first = sorted(range(len(layer_of)), key=lambda number: bool(lines.pred[number]))
    from_left: networkx.DiGraph[int] = networkx.DiGraph()
    from_left.add_nodes_from(roots_first)
    from_left.add_edges_from(lines.edges)
    columns: list[list[int]] = [[] for _ in range(max(layer_of, default=-1) + 1)]
    depth: dict[int, int] = {}
    for number in sorted(range(len(layer_of)), key=lambda number: -layer_of[number]):
        depth[number] = 1 + max((depth[other] for other in lines.succ[number]), default=0)

    def deepest_amid(numbers: Iterable[int]) -> list[int]:
        numbers = list(numbers)
        most = max((depth[number] for number in numbers), default=0)
        others = [number for number in numbers if depth[number] < most]
        half = len(others) // 2
        return [*others[:half], *(number for number in numbers if depth[number] == most), *others[half:]]

    for number in networkx.dfs_preorder_nodes(from_left, sort_neighbors=deepest_amid):
        columns[layer_of[number]].append(number)
    return columns


def _order_columns(layer_of: list[int], lines: networkx.DiGraph[int]) -> list[list[int]]:
    """Return the columns, top to bottom, in the order with the fewest crossings of all sweeps."""
    columns = _first_order(layer_of, lines)
    best, fewest = [list(column) for column in columns], _crossings(columns, lines)
    for sweep in range(_SWEEPS):
        rightwards = sweep % 2 == 0
        for index in range(1, len(columns)) if rightwards else range(len(columns) - 2, -1, -1):
            adjacent = columns[index - 1] if rightwards else columns[index + 1]
            position = {number: row for row, number in enumerate(adjacent)}
            near = lines.pred if rightwards else lines.succ
            rows = {n: [position[other] for other in near[n]] or [row] for row, n in enumerate(columns[index])}
            means = {number: sum(places) / len(places) for number, places in rows.items()}
            columns[index].sort(key=means.__getitem__)
        crossings = _crossings(columns, lines)
        if crossings < fewest:
            best, fewest = [list(column) for column in columns], crossings
    return best


def _crossings(columns: list[list[int]], lines: networkx.DiGraph[int]) -> int:
    """Count the pairs of lines that cross between neighbouring columns."""
    count = 0
    for column, following in pairwise(columns):
        position = {number: row for row, number in enumerate(following)}
        passed: list[int] = []
        for number in column:
            rows = sorted(position[other] for other in lines.succ[number])
            count += sum(len(passed) - bisect_left(passed, row + 1) for row in rows)
            passed = sorted(passed + rows)
    return count


def _heights(
    columns: list[list[int]], lines: networkx.DiGraph[int], heights: list[float], row_gap: float, boxes: int
) -> list[float]:
    """Return the height of each number: near its neighbours' mean, in its column's order, without overlap."""
    before, after = lines.pred, lines.succ
    ys = [0.0] * len(heights)
    for column in columns:
        _spread(column, [0.0] * len(column), [1.0] * len(column), heights, row_gap, ys)
    for sweep in range(2 * _SWEEPS):
        both = sweep >= 2 * _SWEEPS - 2
        for column in columns if sweep % 2 == 0 else reversed(columns):
            preferred, weights = [], []
            for number in column:
                neighbours = [*before[number], *after[number]] if both else [*(after if sweep % 2 else before)[number]]
                strength = [_STRAIGHT if number >= boxes and other >= boxes else 1.0 for other in neighbours]
                total = sum(strength)
                preferred.append(
                    sum(ys[o] * s for o, s in zip(neighbours, strength, strict=True)) / total if total else ys[number]
                )
                weights.append(total or 0.1)
            _spread(column, preferred, weights, heights, row_gap, ys)
    top = min((ys[number] - heights[number] / 2 for number in range(len(heights))), default=0.0)
    return [y - top for y in ys]


def _spread(
    column: list[int],
    preferred: list[float],
    weights: list[float],
    heights: list[float],
    row_gap: float,
    ys: list[float],
) -> None:
    """Set `ys` of a column closest to the preferred ones, without overlap, by pooling adjacent violators."""
    steps = ((heights[above] + heights[below]) / 2 + row_gap for above, below in pairwise(column))
    offsets = list(accumulate(steps, initial=0.0))[: len(column)]
    blocks: list[tuple[float, float, int]] = []  # (mean preferred height without offsets, weight, count)
    for height, weight, offset in zip(preferred, weights, offsets, strict=True):
        mean, total, count = height - offset, weight, 1
        while blocks and blocks[-1][0] > mean:
            other_mean, other_total, other_count = blocks.pop()
            mean = (mean * total + other_mean * other_total) / (total + other_total)
            total, count = total + other_total, count + other_count
        blocks.append((mean, total, count))
    means = [mean for mean, _, count in blocks for _ in range(count)]
    for number, mean, offset in zip(column, means, offsets, strict=True):
        ys[number] = mean + offset


def _course(
    chain: list[int], sizes: Sequence[Point], layer_of: list[int], xs: list[float], widths: list[float],
    ys: list[float], turns: Mapping[int, tuple[float, float, float]],
) -> tuple[Point, ...]:  # fmt: skip
    """Return the points of a line from its left box's right border, straight through each column, to its right box."""
    points = [(xs[layer_of[chain[0]]] + sizes[chain[0]][0] / 2, ys[chain[0]])]
    for before, number in pairwise(chain):
        x, half = xs[layer_of[number]], widths[layer_of[number]] / 2
        if before in turns:
            right, below, left = turns[before]
            points += [(right, ys[before]), (right, below), (left, below), (left, ys[number])]
        points += [(x - half, ys[number]), (x + half, ys[number])]
    return (*points[:-2], (xs[layer_of[chain[-1]]] - sizes[chain[-1]][0] / 2, ys[chain[-1]]))
