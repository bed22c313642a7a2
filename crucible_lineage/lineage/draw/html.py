"""A lineage as one HTML file for use offline: pan, search, unfold, and read about each dataset."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import zlib
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from importlib.resources import files
from typing import Any

from crucible_lineage.errors import InputError
from crucible_lineage.json_types import JsonMapping, JsonObject
from crucible_lineage.lineage.draw.formats import public_ids, redactor
from crucible_lineage.lineage.draw.view import FOLD_BEYOND, STATE_COLOURS, colours, dispensable, note_of, roles_of
from crucible_lineage.lineage.graph import LineageGraph
from crucible_lineage.lineage.labels import plain, title
from crucible_lineage.lineage.model import Node
from crucible_lineage.lineage.records import declared_step, given_metadata, moment, provenance, recorded_files

__all__ = ["page_data", "render_html"]

SCRIPTS = ("data.js", "fold.js", "arrange.js", "draw.js", "panel.js", "page.js")
_THUMBNAIL = re.compile(r"data:image/(png|jpeg|gif|webp);base64,[A-Za-z0-9+/=]+")
_NODE_COLUMNS: dict[str, Callable[[Node], object]] = {
    "kind": lambda node: node.kind,
    "name": title,
    "measurement": lambda node: plain(node.measurement),
    "data_type": lambda node: plain(node.data_type),
    "state": lambda node: plain(node.shown_state),
    "step": lambda node: plain(node.step),
    "remade": lambda node: node.remade,
    "superseded_by": lambda node: list(node.superseded_by),
}
_FIELDS = (  # of a record, in the order of the panel
    "creation_time",
    "instrument_name",
    "session_name",
    "data_format",
    "owner_orcid",
    "project_id",
    "description",
)


def render_html(
    graph: LineageGraph,
    focus: str | None = None,
    *,
    pages: str = "",
    superseded: bool = False,
) -> str:
    """Return the page as text. It opens on `focus`, or on everything, with at most forty boxes; the rest unfolds. A
    button shows superseded results, or `superseded` from the beginning.

    The page contains each dataset's record: metadata, parameters, files with hashes, provenance, and the thumbnail if
    the record has one as a data URI under `thumbnail`. Anyone with the file can read it. `pages` is the address of
    datasets' own pages up to the MFID, for links. `page_data` reads the data of a page.
    """
    script, style = _script(), _resource("page.css")
    names = public_ids(graph)
    drawable = _drawable(graph, graph.node(focus).id if focus else None, names)
    redact = redactor(graph)
    details = packed([redact(_detail(node)) for node in graph.nodes.values()], drawable["nodes"]["id"])
    policy = (
        f"default-src 'none'; img-src data:; style-src 'sha256-{_digest(style)}'; "
        f"script-src 'sha256-{_digest(script)}'; base-uri 'none'; form-action 'none'"
    )
    from jinja2 import Environment  # a third of the start time of `crucible-lineage lineage`; a tree does not need it

    return (
        Environment(autoescape=True, keep_trailing_newline=True)
        .from_string(_resource("page.html"))
        .render(
            policy=policy,
            title=f"Lineage of {title(graph.node(focus))}" if focus else "Lineage",
            style=style,
            data=_embedded(drawable | {"pages": pages, "details": details, "superseded": superseded}),
            script=script,
        )
    )


def page_data(page: str) -> dict[str, object]:
    """Return a page's data: nodes and edges as columns, and `details`, a record for each node or None."""
    match = re.search(r'id="data">([^<]*)<', page)
    if match is None:
        raise InputError("read the data of a lineage page: it contains none")
    data: JsonObject = json.loads(zlib.decompress(base64.b64decode(match[1])))
    return data | {"details": unpacked(data["details"], data["nodes"]["id"])}


def _drawable(graph: LineageGraph, focus: str | None, names: Mapping[str, str]) -> JsonObject:
    """Return the data for drawing: columns of nodes, and of edges with the numbers of their ends."""
    number_of = {mfid: number for number, mfid in enumerate(graph.nodes)}
    roles = roles_of(graph)
    number_of_roles = {role: number for number, role in enumerate(dict.fromkeys(roles.values()), 1)}
    nodes, edges = graph.nodes.values(), graph.edges.values()
    steps = [declared_step(node.record) for node in nodes]
    number_of_step = {step: number for number, step in enumerate(dict.fromkeys([("", ""), *steps]))}
    return {
        "nodes": {
            **{name: [read(node) for node in nodes] for name, read in _NODE_COLUMNS.items()},
            "id": [names[node.id] for node in nodes],
            "roles": [number_of_roles[roles[node.id]] if node.id in roles else 0 for node in nodes],
            "declared": [number_of_step[step] for step in steps],
        },
        "edges": {
            "source": [number_of[edge.source] for edge in edges],
            "target": [number_of[edge.target] for edge in edges],
            "relationship": [plain(edge.relationship) for edge in edges],
            "note": [plain(note_of(graph, edge)) for edge in edges],
        },
        "focus": number_of[focus] if focus else None,
        "foldBeyond": FOLD_BEYOND,
        "colours": {plain(kind): colour for kind, colour in colours(graph.nodes.values()).items()},
        "badStates": list(STATE_COLOURS),
        "leftOut": sorted(number_of[mfid] for mfid in dispensable(graph, [focus] if focus else [])),
    }


def _detail(node: Node) -> JsonObject | None:
    """Return the panel's content for a node; None without a record, or for a hidden node."""
    if node.record is None or node.kind == "hidden":
        return None
    written = provenance(node.record)
    recipe = written.get("recipe")
    thumbnail = node.record.get("thumbnail")
    is_timed = node.record.get("timestamp") not in (None, "")
    return {
        "record": {
            **({"timestamp": node.record["timestamp"] if moment(node.record) else "not known"} if is_timed else {}),
            **{key: node.record[key] for key in _FIELDS if node.record.get(key) not in (None, "")},
        },
        "thumbnail": thumbnail if isinstance(thumbnail, str) and _THUMBNAIL.fullmatch(thumbnail) else None,
        "metadata": given_metadata(node.record),
        "params": recipe.get("params") if isinstance(recipe, Mapping) else None,
        "files": [{"name": n, "size": size, "sha256": sha256} for n, sha256, size in recorded_files(node.record)],
        "provenance": {key: value for key, value in written.items() if key != "generated"},
    }


def _embedded(value: object) -> str:
    """Return the value as deflated JSON in base64: a tenth of the size, and free of markup."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return base64.b64encode(zlib.compress(text.encode("utf-8", "backslashreplace"), 9)).decode()


def _script() -> str:
    """Return the script files in one function, so that their names do not clash with the browser's."""
    return "(async () => {\n" + "".join(map(_resource, SCRIPTS)) + "})();\n"


def _resource(name: str) -> str:
    return files("crucible_lineage.lineage.draw").joinpath(name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    """Return the hash by which the page's policy allows only its own script and style."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


Value = Any  # JSON
Parts = tuple[int, ...]
_LIST = -1  # the shape of a list
_OFTEN = 20  # uses that make a value common: a lower limit makes the result larger, a higher one changes nothing


def packed(values: Sequence[Value], names: Sequence[str]) -> JsonObject:
    """Pack values, each with a unique name, as `shapes`, `common` and `rows`, for `unpacked`.

    A row contains the new parts of a value, parts before containers, the value itself last; its name precedes them and
    is not written. Scalars are written as they are, a container as an array: the number of its shape (its keys; -1 is a
    list), and for each part its distance back in the rows, or -1 for the first of `common`, -2 for the second and so
    on. Equal values give equal results.
    """
    distinct = _Distinct()
    for value in _common_values(values):
        distinct.add(value)
    first = len(distinct)
    starts = []
    for value, name in zip(values, names, strict=True):
        starts.append(len(distinct))
        distinct.add_new(name)
        distinct.add_new(value)
    entries = [distinct.encoded(number, first) for number in range(len(distinct))]
    ends = [*starts, len(distinct)][1:]
    return {
        "shapes": list(distinct.shapes),
        "common": entries[:first],
        "rows": [entries[start + 1 : end] for start, end in zip(starts, ends, strict=True)],
    }


def unpacked(pack: JsonMapping, names: Sequence[str]) -> list[Value]:
    """Undo `packed`."""
    entries, roots = list(pack["common"]), []
    for name, row in zip(names, pack["rows"], strict=True):
        entries += [name, *row]
        roots.append(len(entries) - 1)

    def value_of(number: int) -> Value:
        entry = entries[number]
        if not isinstance(entry, list):
            return entry
        shape, *references = entry
        parts = [value_of(-back - 1 if back < 0 else number - back) for back in references]
        return parts if shape == _LIST else dict(zip(pack["shapes"][shape], parts, strict=True))

    return [value_of(root) for root in roots]


def _common_values(values: Sequence[Value]) -> Iterator[Value]:
    """Return the distinct values that are used often, in the order of their first use."""
    distinct = _Distinct()
    for value in values:
        distinct.add(value)
    uses = [0] * len(distinct)
    for _, parts in distinct.entries:
        for part in parts:
            uses[part] += 1
    return (distinct.value(number) for number, count in enumerate(uses) if count >= _OFTEN)


class _Distinct:
    """Distinct values by number, parts before containers: a scalar without parts, or a shape with its parts."""

    def __init__(self) -> None:
        self.entries: list[tuple[Value, Parts]] = []
        self.shapes: dict[tuple[str, ...], int] = {}
        self._is_container: list[bool] = []
        self._number_of: dict[Hashable, int] = {}

    def __len__(self) -> int:
        return len(self.entries)

    def add(self, value: Value) -> int:
        """Return the number of a value; add it if there is no equal one."""
        key, entry = self._keyed(value)
        number = self._number_of.get(key)
        return self._append(key, entry) if number is None else number

    def add_new(self, value: Value) -> None:
        """Add a value under the next number, even if there is an equal one."""
        self._append(*self._keyed(value))

    def encoded(self, number: int, common: int) -> Value:
        """Return an entry in the form of `packed`; numbers below `common` are those of common values."""
        head, parts = self.entries[number]
        if not self._is_container[number]:
            return head
        return [head, *(-part - 1 if part < common else number - part for part in parts)]

    def value(self, number: int) -> Value:
        head, parts = self.entries[number]
        if not self._is_container[number]:
            return head
        values = [self.value(part) for part in parts]
        return values if head == _LIST else dict(zip(list(self.shapes)[head], values, strict=True))

    def _keyed(self, value: Value) -> tuple[Hashable, tuple[Value, Parts]]:
        if isinstance(value, dict):
            shape = self.shapes.setdefault(tuple(value), len(self.shapes))
            parts = tuple([self.add(part) for part in value.values()])
            return (shape, parts), (shape, parts)
        if isinstance(value, list):
            parts = tuple([self.add(part) for part in value])
            return (_LIST, parts), (_LIST, parts)
        # The key has the type and repr: 1, 1.0 and True are equal in Python, and so are 0.0 and -0.0.
        return (type(value), repr(value) if isinstance(value, float) else value), (value, ())

    def _append(self, key: Hashable, entry: tuple[Value, Parts]) -> int:
        self._number_of[key] = len(self.entries)
        self._is_container.append(isinstance(key, tuple) and isinstance(key[1], tuple))
        self.entries.append(entry)
        return len(self.entries) - 1
