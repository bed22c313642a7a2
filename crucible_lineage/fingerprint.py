"""What a step's code is: a hash over its function and all first-party code and constants that it reaches.

The hash is taken over the syntax tree, so comments, docstrings, formatting, type hints, and the place and name of the
file do not count. What cannot be followed (C code, objects without source or with hidden state) is named in
`not_covered`; third-party packages are named in `packages`, and count only where a step lists them.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import linecache
import logging
import re
import sys
import types
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, get_origin

from crucible_lineage.ids import canonical_json
from crucible_lineage.params import canonical_value
from crucible_lineage.step import Step
from crucible_lineage.syntax import (
    bytecode_text,
    class_tree,
    code_tree,
    global_names,
    imported_names,
    is_first_party,
    method_names,
    module_chains,
    read_names,
    root_package,
    syntax_text,
)

__all__ = ["Fingerprint", "code_fingerprint"]

STEP = "step"  # the piece that is the step function itself


@dataclass(frozen=True)
class Fingerprint:
    """The hash, and what went into it.

    `covered` maps the name of each piece, in the order it was reached, to the hash of that piece; `files` are the
    source files that were read; `source` is the text of the step function itself.
    """

    digest: str
    covered: tuple[tuple[str, str], ...]
    not_covered: tuple[str, ...]
    packages: tuple[str, ...]
    files: tuple[str, ...]
    source: str


def code_fingerprint(target: Callable[..., Any] | Step[..., Any]) -> Fingerprint:
    """The fingerprint of a step or function. The same on every machine and Python version for the same code."""
    function = target.function if isinstance(target, Step) else target
    walk = _Walk(root_package(function.__module__))
    walk.reach(STEP, function)
    walk.run()
    digest = hashlib.sha256(b"crucible-lineage/code/1\n" + canonical_json(walk.pieces)).hexdigest()
    return Fingerprint(
        digest=digest,
        covered=tuple((name, hashlib.sha256(text.encode()).hexdigest()) for name, text in walk.pieces),
        not_covered=tuple(sorted(walk.not_covered)),
        packages=tuple(sorted(walk.packages)),
        files=tuple(sorted(walk.files)),
        source=_source(function),
    )


class _Walk:
    """Breadth first over what code refers to, each object once, in the order of the source text."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.pieces: list[tuple[str, str]] = []
        self.not_covered: set[str] = set()
        self.packages: set[str] = set()
        self.files: set[str] = set()
        self._queue: deque[tuple[str, Any]] = deque()
        self._seen: dict[int, Any] = {}  # keeps the objects alive, so that an id() is not given out twice

    def reach(self, name: str, value: Any) -> None:
        self._queue.append((name, value))

    def run(self) -> None:
        while self._queue:
            name, value = self._queue.popleft()
            if id(value) in self._seen and not isinstance(value, (int, float, str, bytes, bool, type(None))):
                continue
            self._seen[id(value)] = value
            self._visit(name, value)

    def _visit(self, name: str, value: Any) -> None:
        if isinstance(value, Step):
            self._visit_step(name, value)
        elif isinstance(value, types.FunctionType):
            self._visit_function(name, value)
        elif isinstance(value, functools.partial):
            self.pieces.append((name, "partial"))
            self._reach_all(name, [value.func, *value.args, *(value.keywords[key] for key in sorted(value.keywords))])
        elif isinstance(value, types.MethodType):
            self._reach_all(name, [value.__func__, value.__self__])
        elif isinstance(value, (staticmethod, classmethod)):
            self.reach(name, value.__func__)
        elif isinstance(value, property):
            self._reach_all(name, [part for part in (value.fget, value.fset, value.fdel) if part])
        elif isinstance(value, types.ModuleType):
            self._note_package(value.__name__)
        elif isinstance(value, type):
            self._visit_class(name, value)
        elif isinstance(value, (types.BuiltinFunctionType, types.MethodDescriptorType, types.WrapperDescriptorType)):
            self._visit_builtin(name, value)
        elif callable(value) and hasattr(value, "__wrapped__"):  # such as functools.lru_cache
            self.reach(name, value.__wrapped__)
        elif isinstance(value, logging.Logger) or get_origin(value) is not None:
            return  # a logger returns nothing that could enter a result, and list[int] is only a hint
        else:
            self._visit_constant(name, value)

    def _visit_step(self, name: str, value: Step[..., Any]) -> None:
        if value.version is not None:
            self.pieces.append((name, f"version {value.version}"))
        else:
            self.reach(name, value.function)

    def _visit_function(self, name: str, function: types.FunctionType) -> None:
        if not self._first_party(function.__module__):
            return
        tree = code_tree(function.__code__)
        if tree is None:
            self.not_covered.add(f"{function.__module__}:{function.__qualname__} (no source text)")
            self.pieces.append((name, bytecode_text(function.__code__)))
            return
        self.files.add(function.__code__.co_filename)
        # The defaults of the step itself reach the identity as parameters, whether they were given or not.
        self.pieces.append((name, syntax_text(tree, with_defaults=name != STEP)))
        closure = inspect.getclosurevars(function).nonlocals if function.__closure__ else {}
        known = {**function.__globals__, **closure}
        wanted = global_names(tree, function.__code__)
        self._reach_names(wanted, known, function.__module__)
        for module_name, attribute in module_chains(tree):
            self._reach_attribute(known.get(module_name), attribute)
        for imported, attribute_name in imported_names(tree, function.__globals__.get("__package__") or ""):
            self._reach_import(imported, attribute_name)
        if name != STEP:
            self._reach_all(f"{name} default", [*(function.__defaults__ or ()), *_keyword_defaults(function)])

    def _visit_class(self, name: str, value: type) -> None:
        if not self._first_party(value.__module__):
            return
        tree = class_tree(value)
        if tree is None:
            self.not_covered.add(f"{value.__module__}:{value.__qualname__} (no source text)")
            return
        module = inspect.getmodule(value)
        if module is not None and module.__file__:
            self.files.add(module.__file__)
        self.pieces.append((name, syntax_text(tree)))
        self._reach_all(f"{name} base", [base for base in value.__bases__ if base is not object])
        self._reach_names(read_names(tree), vars(module) if module else {}, value.__module__)
        for key in method_names(tree):  # what a decorator adds, as dataclass does, follows from the class
            self.reach(f"{name}.{key}", vars(value).get(key))

    def _visit_builtin(self, name: str, value: Any) -> None:
        module = getattr(value, "__module__", None)
        if module and module != "builtins" and self._first_party(module):
            self.not_covered.add(f"{module}:{name} (compiled code)")
        self.pieces.append((name, f"builtin {getattr(value, '__qualname__', name)}"))

    def _visit_constant(self, name: str, value: Any) -> None:
        if value is inspect.Parameter.empty:
            return
        if isinstance(value, re.Pattern):
            self.pieces.append((name, f"pattern {value.pattern!r} {value.flags}"))
            return
        if isinstance(value, (list, tuple)) and any(_is_code(item) for item in value):
            self._reach_all(name, list(value))
            return
        if isinstance(value, Mapping) and any(_is_code(item) for item in value.values()):
            for key, item in value.items():
                self.reach(f"{name}[{key!r}]", item)
            return
        try:
            text = canonical_json(canonical_value(value, name)).decode()
        except Exception:
            self._visit_instance(name, value)
        else:
            self.pieces.append((name, f"constant {text}"))

    def _visit_instance(self, name: str, value: Any) -> None:
        """An object that is no plain value: its class and its attributes, or a note that it is not covered."""
        array = getattr(value, "tobytes", None)
        if array is not None and hasattr(value, "dtype") and hasattr(value, "shape"):
            digest = hashlib.sha256(array()).hexdigest()
            self.pieces.append((name, f"array {value.dtype} {value.shape} {digest}"))
        elif self._first_party(type(value).__module__) and hasattr(value, "__dict__"):
            self.reach(f"{name} class", type(value))
            for key, item in sorted(vars(value).items()):
                self.reach(f"{name}.{key}", item)
        else:
            self.not_covered.add(f"{name} (a {type(value).__module__}.{type(value).__qualname__})")

    def _reach_names(self, names: list[str], known: Mapping[str, Any], module: str) -> None:
        for name in names:
            if name in known:
                value = known[name]
                if not isinstance(value, types.ModuleType) or not is_first_party(value.__name__, self.root):
                    self.reach(name, value)
            elif name == "__import__" or name in ("eval", "exec"):
                self.not_covered.add(f"{module}: {name}() (code that is known only when it runs)")

    def _reach_attribute(self, module: Any, attribute: str) -> None:
        if isinstance(module, types.ModuleType):
            if self._first_party(module.__name__):
                if hasattr(module, attribute):
                    self.reach(attribute, getattr(module, attribute))
            elif module.__name__ == "importlib" and attribute == "import_module":
                self.not_covered.add("importlib.import_module (code that is known only when it runs)")

    def _reach_import(self, module: str, attribute: str | None) -> None:
        if not is_first_party(module, self.root):
            self._note_package(module)
            return
        loaded = import_module(module)
        if attribute is not None:
            self.reach(attribute, getattr(loaded, attribute, None))

    def _reach_all(self, name: str, values: list[Any]) -> None:
        for index, value in enumerate(values):
            self.reach(f"{name} {index}", value)

    def _first_party(self, module: str | None) -> bool:
        if module is None or is_first_party(module, self.root):
            return module is not None
        self._note_package(module)
        return False

    def _note_package(self, module: str) -> None:
        package = root_package(module)
        if package not in sys.stdlib_module_names:
            self.packages.add(package)


def _is_code(value: Any) -> bool:
    return isinstance(value, (types.FunctionType, functools.partial, types.MethodType, type, Step))


def _keyword_defaults(function: types.FunctionType) -> list[Any]:
    return [value for _, value in sorted((function.__kwdefaults__ or {}).items())]


def _source(function: Callable[..., Any]) -> str:
    code = getattr(inspect.unwrap(function), "__code__", None)
    if code is None:
        return ""
    lines = linecache.getlines(code.co_filename)
    return "".join(inspect.getblock(lines[code.co_firstlineno - 1 :])) if lines else ""
