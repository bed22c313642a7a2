"""A lineage as one HTML file that needs no network: to look around in, search, unfold, and read about each dataset."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import zlib
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from importlib.resources import files
from typing import Any

from crucible_lineage.errors import InputError
from crucible_lineage.lineage.draw.formats import public_ids
from crucible_lineage.lineage.draw.view import FOLD_BEYOND, STATE_COLOURS, colours, dispensable, note_of, roles_of
from crucible_lineage.lineage.graph import LineageGraph
from crucible_lineage.lineage.labels import plain, title
from crucible_lineage.lineage.model import Node
from crucible_lineage.lineage.records import OWN_KEYS, moment, provenance

__all__ = ["page_data", "render_html"]

SCRIPTS = ("data.js", "fold.js", "arrange.js", "draw.js", "panel.js", "page.js")
_MFID = re.compile(r"[0-9a-hjkmnp-tv-z]{26}")
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
_FIELDS = (  # of a record, as the panel lists them
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
    heading: str = "",
    pages: str = "",
    superseded: bool = False,
) -> str:
    """The page as text. It opens on `focus`, or on everything, with at most forty boxes; the rest unfolds, and what is
    superseded appears at the press of a button, or is there from the beginning if it is asked for.

    Of each dataset it holds what its record holds: metadata, parameters, files with hashes, provenance, and the
    thumbnail if the record has one as a data URI under `thumbnail`. Who gets the file can read all of it. With `pages`,
    the address of a dataset's own page up to its MFID, it links to those. `page_data` reads what it holds. Without a
    `heading` it is called by the focus.
    """
    script, style = _script(), _resource("page.css")
    names = public_ids(graph)
    drawable = _drawable(graph, graph.node(focus).id if focus else None, names)
    shown = _without_hidden(graph, names)
    details = packed([shown(_detail(node)) for node in graph.nodes.values()], drawable["nodes"]["id"])
    policy = (
        f"default-src 'none'; img-src data:; style-src 'sha256-{_digest(style)}'; "
        f"script-src 'sha256-{_digest(script)}'; base-uri 'none'; form-action 'none'"
    )
    from jinja2 import Environment  # a third of what `crucible-lineage lineage` takes to start; a tree needs none

    return (
        Environment(autoescape=True, keep_trailing_newline=True)
        .from_string(_resource("page.html"))
        .render(
            policy=policy,
            title=plain(heading) or (f"Lineage of {title(graph.node(focus))}" if focus else "Lineage"),
            style=style,
            data=_embedded(drawable | {"pages": pages, "details": details, "superseded": superseded}),
            script=script,
        )
    )


def page_data(page: str) -> dict[str, object]:
    """Return a page's data: nodes and edges as columns, and `details`, a record for each node or None."""
    found = re.search(r'id="data">([^<]*)<', page)
    if found is None:
        raise InputError("read the data of a lineage page: there are none in it")
    data: dict[str, Any] = json.loads(zlib.decompress(base64.b64decode(found[1])))
    return data | {"details": unpacked(data["details"], data["nodes"]["id"])}


def _drawable(graph: LineageGraph, focus: str | None, names: Mapping[str, str]) -> dict[str, Any]:
    """Return what the page needs to draw: the columns of nodes and edges, these by the numbers of their ends."""
    number_of = {mfid: number for number, mfid in enumerate(graph.nodes)}
    roles = roles_of(graph)
    number_of_roles = {role: number for number, role in enumerate(dict.fromkeys(roles.values()), 1)}
    nodes, edges = graph.nodes.values(), graph.edges.values()
    return {
        "nodes": {
            **{name: [read(node) for node in nodes] for name, read in _NODE_COLUMNS.items()},
            "id": [names[node.id] for node in nodes],
            "roles": [number_of_roles[roles[node.id]] if node.id in roles else 0 for node in nodes],
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
        "badStates": sorted(STATE_COLOURS),
        "leftOut": sorted(number_of[mfid] for mfid in dispensable(graph, [focus] if focus else [])),
    }


def _detail(node: Node) -> dict[str, Any] | None:
    """Return what the panel shows of a node, or None where there is no record; nothing of a hidden one."""
    if node.record is None or node.kind == "hidden":
        return None
    written = provenance(node.record)
    recipe = written.get("recipe")
    metadata = node.record.get("scientific_metadata")
    thumbnail = node.record.get("thumbnail")
    is_timed = node.record.get("timestamp") not in (None, "")
    return {
        "record": {
            **({"timestamp": node.record["timestamp"] if moment(node.record) else "not known"} if is_timed else {}),
            **{key: node.record[key] for key in _FIELDS if node.record.get(key) not in (None, "")},
        },
        "thumbnail": thumbnail if isinstance(thumbnail, str) and _THUMBNAIL.fullmatch(thumbnail) else None,
        "metadata": {k: v for k, v in metadata.items() if k not in OWN_KEYS} if isinstance(metadata, Mapping) else {},
        "params": recipe.get("params") if isinstance(recipe, Mapping) else None,
        "files": _files(node),
        "provenance": {key: value for key, value in written.items() if key != "generated"},
    }


def _files(node: Node) -> list[dict[str, object]]:
    listed = provenance(node.record).get("generated") or (node.record or {}).get("files")
    entries = listed if isinstance(listed, list) else []
    return [
        {
            "name": entry.get("name") or entry.get("filename"),
            "size": entry.get("size"),
            "sha256": entry.get("sha256") or entry.get("sha256_hash"),
        }
        for entry in entries
        if isinstance(entry, Mapping)
    ]


def _without_hidden(graph: LineageGraph, names: Mapping[str, str]) -> Callable[[Any], Any]:
    """Makes of a value what JSON can hold, with the ids of hidden nodes replaced by their names wherever they stand."""
    hidden = {mfid: names[mfid] for mfid, node in graph.nodes.items() if node.kind == "hidden"}

    def text(value: str) -> str:
        if not hidden:
            return value
        return hidden.get(value) or _MFID.sub(lambda found: hidden.get(found[0], found[0]), value)

    def shown(value: object) -> Any:
        if isinstance(value, str):
            return text(value)
        if isinstance(value, Mapping):
            return {text(str(key)): shown(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [shown(inner) for inner in value]
        is_json = value is None or isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))
        return value if is_json else text(str(value))

    return shown


def _embedded(value: object) -> str:
    """The value as JSON, deflated, in base64: a tenth of its size, and nothing in it is markup."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return base64.b64encode(zlib.compress(text.encode("utf-8", "backslashreplace"), 9)).decode()


def _script() -> str:
    """The script files in one function, so that none of their names meets one of the browser's."""
    return "(async () => {\n" + "".join(map(_resource, SCRIPTS)) + "})();\n"


def _resource(name: str) -> str:
    return files("crucible_lineage.lineage.draw").joinpath(name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    """The hash by which the page's policy allows its own script and style and no other."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


Value = Any  # what JSON can hold
Parts = tuple[int, ...]
_LIST = -1  # the shape of a list
_OFTEN = 20  # uses from which a value is a common one: fewer make the result larger, more change nothing


def packed(values: Sequence[Value], names: Sequence[str]) -> dict[str, Any]:
    """The values, each with a name of its own, as `shapes`, `common` and `rows`; `unpacked` gives them back.

    A row has what is new in a value, parts before wholes, the value itself last; before all that stands, unwritten, its
    name. Texts, numbers, truths and null are written as they are, a whole as an array: the number of its shape (its
    keys; -1 is a list), and for each part how far back in the rows it stands, or -1 for the first of `common`, -2 for
    the second and so on. The same values give the same result.
    """
    found = _Distinct()
    for value in _often(values):
        found.add(value)
    first = len(found)
    starts = []
    for value, name in zip(values, names, strict=True):
        starts.append(len(found))
        found.add_new(name)
        found.add_new(value)
    written = [found.written(number, first) for number in range(len(found))]
    ends = [*starts, len(found)][1:]
    return {
        "shapes": list(found.shapes),
        "common": written[:first],
        "rows": [written[start + 1 : end] for start, end in zip(starts, ends, strict=True)],
    }


def unpacked(found: Mapping[str, Any], names: Sequence[str]) -> list[Value]:
    """Undo `packed`."""
    entries, roots = list(found["common"]), []
    for name, row in zip(names, found["rows"], strict=True):
        entries += [name, *row]
        roots.append(len(entries) - 1)

    def value_of(number: int) -> Value:
        entry = entries[number]
        if not isinstance(entry, list):
            return entry
        shape, *places = entry
        parts = [value_of(-place - 1 if place < 0 else number - place) for place in places]
        return parts if shape == _LIST else dict(zip(found["shapes"][shape], parts, strict=True))

    return [value_of(root) for root in roots]


def _often(values: Sequence[Value]) -> Iterator[Value]:
    """The distinct values that are used often, in the order they come."""
    found = _Distinct()
    for value in values:
        found.add(value)
    uses = [0] * len(found)
    for _, parts in found.entries:
        for part in parts:
            uses[part] += 1
    return (found.value(number) for number, used in enumerate(uses) if used >= _OFTEN)


class _Distinct:
    """Distinct values by number, the parts before the whole: a scalar without parts, or a shape with its parts."""

    def __init__(self) -> None:
        self.entries: list[tuple[Value, Parts]] = []
        self.shapes: dict[tuple[str, ...], int] = {}
        self._is_whole: list[bool] = []
        self._number_of: dict[Hashable, int] = {}

    def __len__(self) -> int:
        return len(self.entries)

    def add(self, value: Value) -> int:
        """The number of a value, which is a new one if there was no equal value before."""
        key, entry = self._described(value)
        number = self._number_of.get(key)
        return self._appended(key, entry) if number is None else number

    def add_new(self, value: Value) -> None:
        """The value has the next number, also if there was an equal one before."""
        self._appended(*self._described(value))

    def written(self, number: int, common: int) -> Value:
        """An entry as `packed` says; numbers below `common` are those of common values."""
        head, parts = self.entries[number]
        if not self._is_whole[number]:
            return head
        return [head, *(-part - 1 if part < common else number - part for part in parts)]

    def value(self, number: int) -> Value:
        head, parts = self.entries[number]
        if not self._is_whole[number]:
            return head
        values = [self.value(part) for part in parts]
        return values if head == _LIST else dict(zip(list(self.shapes)[head], values, strict=True))

    def _described(self, value: Value) -> tuple[Hashable, tuple[Value, Parts]]:
        if isinstance(value, dict):
            shape = self.shapes.setdefault(tuple(value), len(self.shapes))
            parts = tuple([self.add(part) for part in value.values()])
            return (shape, parts), (shape, parts)
        if isinstance(value, list):
            parts = tuple([self.add(part) for part in value])
            return (_LIST, parts), (_LIST, parts)
        # 1, 1.0 and True are equal in Python, 0.0 and -0.0 too.
        return (type(value), repr(value) if isinstance(value, float) else value), (value, ())

    def _appended(self, key: Hashable, entry: tuple[Value, Parts]) -> int:
        self._number_of[key] = len(self.entries)
        self._is_whole.append(isinstance(key, tuple) and isinstance(key[1], tuple))
        self.entries.append(entry)
        return len(self.entries) - 1
