"""What imports bring in: under which public name something foreign is known, and what can be known only at run time."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterable
from importlib import import_module
from importlib.util import resolve_name
from typing import Any

from crucible_lineage.fingerprint.contained import contained
from crucible_lineage.fingerprint.model import Context, External
from crucible_lineage.fingerprint.source import root_package
from crucible_lineage.fingerprint.syntax import Import

__all__ = ["external_name", "imported_files", "imported_value", "module_of", "unknowable_notes", "written_name"]

_MISSING = object()
_UNKNOWABLE = {
    "importlib": "code that is known only when it runs",
    "runpy": "code that is known only when it runs",
    "sys.modules": "code that is known only when it runs",
    "pickle.load": "code that lies in data",
    "pickle.loads": "code that lies in data",
    "ctypes": "compiled code",
    "subprocess": "another program",
    "os.system": "another program",
    "os.popen": "another program",
    "os.environ": "the environment, which is no part of the identity",
    "os.getenv": "the environment, which is no part of the identity",
    "inspect.getsource": "the text of code",
    "typing.get_type_hints": "type hints, which are no part of the identity",
    "inspect.get_annotations": "type hints, which are no part of the identity",
}


def unknowable_notes(name: str) -> list[str]:
    """A note that says why what `name` stands for cannot be followed; none if nothing speaks against it."""
    dotted = name.replace(":", ".")
    parts = dotted.split(".")
    names = (".".join(parts[:count]) for count in range(1, len(parts) + 1))
    return [f"{dotted} ({_UNKNOWABLE[found]})" for found in names if found in _UNKNOWABLE]


def written_name(context: Context, value: object, key: tuple[str, str] | None) -> str | None:
    """The name under which something that is not ours is imported; None if no import gave it.

    That name is the same on every platform and for every version of a library; the place of definition is not.
    """
    for _ in range(8):  # through first-party modules that pass it on
        found = _written_import(context, value, key) if key else None
        if found is None or found.attribute is None or not context.is_first_party(found.module):
            break
        key = found.module, found.attribute
    if found is None or context.is_first_party(found.module):
        return None
    return found.module if found.attribute is None else f"{found.module}:{found.attribute}"


def external_name(context: Context, value: object, key: tuple[str, str] | None) -> str:
    """The name of something that is not ours, if possible as the importing module writes it."""
    if written := written_name(context, value, key):
        return written
    if isinstance(value, types.ModuleType):
        return value.__name__
    if isinstance(value, types.FunctionType):  # functools.wraps gives it the name of what it wraps
        return f"{root_package(value.__globals__.get('__name__', ''))}:{value.__code__.co_qualname}"
    named = value if hasattr(value, "__qualname__") else type(value)
    package = root_package(getattr(named, "__module__", None) or "builtins")
    return f"{'' if context.is_first_party(package) else package}:{named.__qualname__}"


def module_of(found: Import, package: str) -> str:
    """The absolute name of the module that an import names. ImportError if there is none."""
    return resolve_name("." * found.level + found.module, package) if found.level else found.module


def imported_value(context: Context, found: Import, package: str) -> Any:
    """Return what an import inside a function binds: our own module or object, or the name of a foreign one."""
    module = module_of(found, package)
    if not context.is_first_party(module):
        if found.attribute is not None:
            return External(f"{module}:{found.attribute}")
        return External(module if found.bound != root_package(module) else root_package(module))
    loaded = _imported(module)
    if found.attribute is None:
        return loaded if found.bound != root_package(module) else sys.modules[root_package(module)]
    if hasattr(loaded, found.attribute):
        return getattr(loaded, found.attribute)
    return _imported(f"{module}.{found.attribute}")


def _imported(module: str) -> types.ModuleType:
    with contained():
        return import_module(module)


def imported_files(context: Context, modules: Iterable[str]) -> set[str]:
    """The files of these modules and of all first-party modules that they import, directly or not."""
    waiting, seen, files = list(modules), set[str](), set[str]()
    while waiting:
        name = waiting.pop()
        module = sys.modules.get(name)
        if name in seen or module is None or not context.is_first_party(name):
            continue
        seen.add(name)
        if name.rpartition(".")[0]:
            waiting.append(name.rpartition(".")[0])
        if file := getattr(module, "__file__", None):
            files.add(file)
        source = context.module_source(name)
        for found in (item for items in source.imports.values() for item in items) if source else ():
            try:
                absolute = module_of(found, _package(module))
            except ImportError:
                continue
            waiting += [absolute, f"{absolute}.{found.attribute}"]
    return files


def _written_import(context: Context, value: object, key: tuple[str, str]) -> Import | None:
    """The import statement that gave a module's global this value; None if none did, or it was replaced since."""
    module = sys.modules.get(key[0])
    source = context.module_source(key[0])
    for found in source.imports.get(key[1], ()) if source and module else ():
        try:
            absolute = module_of(found, _package(module))
        except ImportError:
            continue
        loaded = sys.modules.get(absolute)
        if found.attribute is None:
            bound = absolute if found.bound != root_package(absolute) else root_package(absolute)
            if sys.modules.get(bound) is value:
                return Import(found.bound, bound, None, 0)
        elif getattr(loaded, found.attribute, _MISSING) is value:
            return Import(found.bound, absolute, found.attribute, 0)
    return None


def _package(module: object) -> str:
    spec = getattr(module, "__spec__", None)
    return getattr(module, "__package__", None) or getattr(spec, "parent", None) or ""
