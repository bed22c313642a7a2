"""Fingerprint of a step's code: a hash over its function and all first-party code and constants that it reaches.

The hash covers syntax trees and values, so comments, docstrings, formatting, type hints, and the path of a file do not
count. Code that cannot be followed (compiled code, objects with hidden state, code that is known only when it runs) is
listed in `not_covered`. Third-party packages are listed in `packages`, and count only if a step declares them.
docs/identity.md has the details.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from crucible_lineage.errors import InputError
from crucible_lineage.fingerprint.functions import (
    Context,
    ExternalName,
    ObjectDescription,
    Reference,
    definition_of,
    home_of,
)
from crucible_lineage.fingerprint.objects import piece_of
from crucible_lineage.fingerprint.source import root_package
from crucible_lineage.fingerprint.values import ValueFaultError, plain_value
from crucible_lineage.ids import CODE_TAG, canonical_json
from crucible_lineage.step import Step
from crucible_lineage.text.masking import code_holds_secret, masked_text

MOST_TEXT = 20_000  # chosen: characters of all pieces in a record
STEP = "step"  # the piece of the step function itself
State = frozenset[tuple[object, ...]]


@dataclass(frozen=True)
class Fingerprint:
    """The hash and its ingredients.

    `files` are the source files; `source` is the text of the step function, `pieces` what it reaches in readable form,
    in the order of discovery: the text of a function, the value of a number, else `#` and a hash, since a text may be a
    secret. Both are masked; `secrets` names the pieces whose constants hold one.
    """

    digest: str
    not_covered: tuple[str, ...]
    packages: tuple[str, ...]
    files: tuple[str, ...]
    source: str
    pieces: tuple[tuple[str, str], ...]
    secrets: tuple[str, ...] = ()


def code_fingerprint(target: Callable[..., object] | Step[..., object], *, home: str | None = None) -> Fingerprint:
    """Return the fingerprint of a step or function; the package of `home`, by default its own, is first-party."""
    function = target.function if isinstance(target, Step) else target
    root = root_package(home or (function.__module__ if isinstance(target, Step) else ""))
    walk = _Walk(function, root, frozenset())
    if changes := walk.changes():  # changed objects are read differently, so walk again
        walk = _Walk(function, root, changes)
    pieces = [node.piece for node in walk.nodes]
    shapes = [(role.name, role.shape) for role in target.inputs] if isinstance(target, Step) else []
    graph = [shapes, *((node.piece.text, node.edges) for node in walk.nodes)]
    return Fingerprint(
        digest=hashlib.sha256(CODE_TAG + canonical_json(graph)).hexdigest(),
        not_covered=tuple(sorted({note for piece in pieces for note in piece.notes})),
        packages=tuple(sorted({package for piece in pieces for package in piece.packages})),
        files=tuple(sorted(walk.files())),
        source=walk.source(),
        pieces=tuple(walk.pieces()),
        secrets=tuple(walk.secrets()),
    )


@dataclass
class _Node:
    """A piece in the graph: `edges` are its references as (label, number of the node)."""

    name: str
    reference: Reference
    piece: ObjectDescription
    edges: list[tuple[str, int]] = field(default_factory=list)


class _Walk:
    """Breadth-first walk over references of code; they lead to numbers, which leaves out names and paths."""

    def __init__(self, function: Callable[..., object], root: str, state: State) -> None:
        self.function = function
        self.context = Context(root, state)
        self.nodes: list[_Node] = []  # keeps the objects alive, so that no id() is reused
        self._steps = {id(function), id(inspect.unwrap(function))}
        self._numbers: dict[object, int] = {}
        self._add(STEP, Reference(STEP, function))
        for node in self.nodes:  # grows during the loop
            for part in node.piece.references:
                name = node.name + part.label if part.label.startswith((".", "[", " ")) else part.label  # else a global
                node.edges.append((part.label, self._add(name, part)))

    def changes(self) -> State:
        """Return the changes that the code makes when it runs, without those during import."""
        running, waiting = {0}, [0]
        while waiting:
            node = self.nodes[waiting.pop()]
            for part, (_, number) in zip(node.piece.references, node.edges, strict=True):
                if not part.at_import and number not in running:
                    running.add(number)
                    waiting.append(number)
        return frozenset(change for number in running for change in self.nodes[number].piece.changes)

    def files(self) -> set[str]:
        """Return all files whose changes may change the fingerprint."""
        references = [node.reference for node in self.nodes]
        waiting = [reference.key[0] for reference in references if reference.key]
        waiting += [home_of(value) for part in references if isinstance(value := part.value, types.FunctionType)]
        files, seen = {file for node in self.nodes for file in node.piece.files}, set[str]()
        while waiting:  # the modules, and all first-party ones that they import, directly or not
            name = waiting.pop()
            module = sys.modules.get(name)
            if name in seen or module is None or not self.context.is_first_party(name):
                continue
            seen.add(name)
            waiting.append(name.rpartition(".")[0])
            files.add(getattr(module, "__file__", None) or "")
            for statement, absolute in self.context.imported_from(name):
                waiting += [absolute, f"{absolute}.{statement.attribute}"]
        return {file for file in files if Path(file).is_file()}

    def source(self) -> str:
        """Return the text of the step function; empty if it is unavailable."""
        return self._text_of(inspect.unwrap(self.function))

    def pieces(self) -> Iterator[tuple[str, str]]:
        """Yield what the step function reaches as text, value or hash, within MOST_TEXT."""
        room = MOST_TEXT
        for node in self.nodes[1:]:
            if node.piece.text.startswith("external "):
                continue
            text = self._text_of(node.reference.value) or _number(node.piece.text)
            if not text or len(text) > room:
                text = "#" + hashlib.sha256(node.piece.text.encode()).hexdigest()[:12]
            room -= len(text)
            yield node.name, text

    def secrets(self) -> Iterator[str]:
        """Yield the names of pieces with a secret as a constant."""
        for node in self.nodes:
            name = getattr(self.function, "__name__", STEP) if node.name == STEP else node.name
            if code_holds_secret(name, node.piece.text):
                yield name

    def _text_of(self, function: object) -> str:
        if not isinstance(function, types.FunctionType):
            return ""
        source, node = self.context.source(function.__code__.co_filename), definition_of(self.context, function)
        return masked_text(source.lines(node)) if source and node else ""

    def _add(self, name: str, reference: Reference) -> int:
        value = reference.value
        same = value if isinstance(value, ExternalName) else id(value)
        number = self._numbers.get(same)
        if number is None:
            number = len(self.nodes)
            # The defaults of the step itself are part of the identity as parameters.
            piece = piece_of(self.context, reference, with_defaults=id(value) not in self._steps)
            self.nodes.append(_Node(name, reference, piece))
            # Whether equal constants are one object depends on Python.
            if not piece.text.startswith(("constant ", "state")):
                self._numbers[same] = number
        return number


def _number(text: str) -> str:
    """Return the value of a numeric constant; empty for others."""
    kind, _, value = text.removeprefix("constant ").partition(":")
    return value if text.startswith("constant ") and kind in ("int", "float", "bool", "complex") else ""


SECRET_TAG = b"crucible-lineage/secret/1\n"
# 16 MB and some 50 ms for each guess at a secret; chosen so that planning stays fast.
_SCRYPT_COST = {"n": 1 << 14, "r": 8, "p": 1}


def canonical_params(params: Mapping[str, object], step: Step[..., object] | None = None) -> dict[str, object]:
    """Return the parameters as plain JSON, secret ones as digests. Raises InputError for one without a spelling."""
    secrets = {spec.name for spec in step.parameters if spec.secret} if step else set()
    home = step.function.__module__ if step else None
    return {
        name: secret_digest(value, name, step.name) if step and name in secrets else canonical_value(value, name, home)
        for name, value in params.items()
    }


def canonical_value(value: object, name: str, home: str | None = None, *, reveal: bool = False) -> object:
    """Return `value` as JSON: numbers, text, lists and objects. Raises InputError, with `name`, if that is impossible.

    A function becomes the fingerprint of its code, seen from the module `home`. Secrets are refused, unless `reveal`
    says that the result only enters a digest.
    """

    def other(part: object, path: str) -> object:
        if isinstance(part, (type, functools.partial)) or (callable(part) and hasattr(part, "__name__")):
            return {"code": code_fingerprint(part, home=home).digest}
        if not hasattr(part, "get_secret_value"):
            return None
        if reveal:
            return plain_value(part.get_secret_value(), path, other)
        raise InputError(
            f"parameter {path!r} is or contains a secret, whose value must not enter an id or a record; name the "
            f"parameter in @step(secrets=[{name!r}]), or take the secret from a block or the "
            "environment inside the step"
        )

    try:
        return plain_value(value, name, other)
    except ValueFaultError as fault:
        raise InputError(f"parameter {fault.path!r} {fault.reason}") from None


def secret_digest(value: object, name: str, step: str) -> dict[str, str] | None:
    """Return a secret's slow digest (docs/identity.md), the same everywhere, another for each step and parameter."""
    if value is None:
        return None
    content = canonical_json(canonical_value(value, name, reveal=True))
    salt = SECRET_TAG + canonical_json([step, name])
    return {"secret": hashlib.scrypt(content, salt=salt, dklen=16, **_SCRYPT_COST).hex()}
