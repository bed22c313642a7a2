"""What there is to know about a step before it runs: its inputs, outputs, checked parameters and code fingerprint.

All of it is plain data, so that it can be kept: an unchanged step is not imported again to be planned.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import inspect
import os
import sys
import threading
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from importlib import metadata
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError

from crucible_lineage.core.store import Store
from crucible_lineage.errors import Fault, InputError, nearest, nearest_word, shown_path
from crucible_lineage.fingerprint.contained import EndedError, contained
from crucible_lineage.fingerprint.params import canonical_params
from crucible_lineage.fingerprint.source import is_first_party
from crucible_lineage.fingerprint.values import ValueFaultError, plain_value
from crucible_lineage.fingerprint.walk import Fingerprint, code_fingerprint
from crucible_lineage.ids import canonical_json
from crucible_lineage.marks import is_own
from crucible_lineage.pipeline.functions.inspection import RULES, Inspection, with_reads
from crucible_lineage.step import FaultyStep, ParameterSpec, Step, in_declaration

_searched: dict[str, None] = {}  # folders of declarations that the search was given, the last one at the end


class ImportExitError(InputError):
    """The module of a step ends its process when it is imported, so that nothing is known of the step."""


class ImportFaultError(InputError):
    """The module of a step cannot be imported. The fault names the line of Python."""


class Inspector:
    """Looks at the steps of one pipeline: at each function once, however many steps use it."""

    def __init__(self, store: Store | None) -> None:
        self._store = store
        self._steps: dict[tuple[str, Path], Step[..., Any]] = {}
        self._looked_at: dict[tuple[str, Path], Inspection] = {}
        self._new: list[tuple[str, Inspection]] = []

    def inspect(
        self,
        uses: str,
        params: Mapping[str, object],
        folder: Path,
        pending: Collection[str] = (),
        reads: Sequence[str] = (),
    ) -> Inspection:
        """The step that `module:function` names, with these parameters checked and completed by its defaults.

        InputError if there is no such function or it cannot take them. `folder` is searched for modules too. The values
        of `pending` ones are not known yet, and stand as they were written. `reads` are files in `folder`.
        """
        more = [sorted(pending), list(reads)] if pending or reads else []
        asked = canonical_json([uses, canonical_params(params), str(folder), *more])
        key = hashlib.sha256(asked).hexdigest()  # a hash, since a parameter may be a secret
        stored = Inspection.from_json(self._store.inspection(key, RULES)) if self._store else None
        if stored is not None:
            return stored
        named = (uses, folder)
        if named not in self._steps:
            self._steps[named] = find_step(uses, folder)
        step = self._steps[named]
        checked = _sound_params(step, params, pending)
        if named not in self._looked_at:
            self._looked_at[named] = _inspection(step, uses, checked, code_fingerprint(step))
        inspection = replace(self._looked_at[named], params=checked)
        inspection = with_reads(inspection, {name: folder / name for name in reads})
        if inspection.keepable:
            self._new.append((key, inspection))
        return inspection

    def keep(self) -> None:
        """Keep the findings for the next time, while no file changes."""
        if self._store and self._new:
            kept = ((key, inspection.files, vars(inspection)) for key, inspection in self._new)
            self._store.keep_inspections(RULES, kept)
        self._new = []


def inspect_step(
    uses: str,
    params: Mapping[str, Any],
    folder: Path,
    store: Store | None = None,
    reads: Sequence[str] = (),
) -> Inspection:
    """The same of a single step."""
    inspector = Inspector(store)
    inspection = inspector.inspect(uses, params, folder, reads=reads)
    inspector.keep()
    return inspection


def inspection_of(step: Step[..., Any], uses: str, params: Mapping[str, object]) -> Inspection:
    """The inspection of a step that is at hand. InputError with all that is wrong with its parameters and packages."""
    checked = _sound_params(step, params)
    return _inspection(step, uses, checked, code_fingerprint(step))


def _sound_params(
    step: Step[..., Any], params: Mapping[str, object], pending: Collection[str] = ()
) -> dict[str, object]:
    """The checked parameters. InputError with all that is wrong with them, and with the packages of the step."""
    faults = list(_package_faults(step))
    checked: dict[str, Any] = {}
    try:
        checked = checked_params(step, params, pending)
    except InputError as error:
        faults += error.faults
    if faults:
        raise InputError("", faults)
    return checked


def _inspection(step: Step[..., Any], uses: str, params: dict[str, Any], fingerprint: Fingerprint) -> Inspection:
    beside = Path(inspect.getfile(inspect.unwrap(step.function))).parent if step.reads else Path()
    inspection = Inspection(
        uses=uses,
        step=step.name,
        roles={role.name: role.shape for role in step.inputs},
        required=tuple(role.name for role in step.inputs if role.required),
        outputs=step.outputs,
        params=params,
        fingerprint=fingerprint.digest if step.version is None else f"version:{step.version}",
        not_covered=fingerprint.not_covered,
        packages={name: metadata.version(name) for name in sorted(step.packages)},
        reached_packages=fingerprint.packages,
        source=fingerprint.source,
        pieces=dict(fingerprint.pieces),
        measurement=step.measurement,
        data_type=step.data_type,
        thumbnail=step.thumbnail,
        keywords=step.keywords,
        files=fingerprint.files,
        facts=step.facts,
        # A listed package may be updated without any of the files changing; what concerns a secret is not kept at all.
        keepable=not step.packages and not any(spec.secret for spec in step.parameters),
    )
    return with_reads(inspection, {name: beside / name for name in step.reads})


def find_step(uses: str, folder: Path) -> Step[..., Any]:
    """The step that `module:function` names; a plain function counts as a step without further description."""
    found = find_function(uses, folder)
    return found if isinstance(found, Step) else Step(found)


def find_function(uses: str, folder: Path) -> Any:
    """The function, or the step, that `module:function` names; its module is installed, or lies in the folder."""
    module_name, colon, function_name = uses.partition(":")
    if not colon or not module_name or not function_name:
        raise InputError(f"{uses!r} does not name a function; write module:function, as in mylab.raman:calibrate")
    if not all(part.isidentifier() for part in module_name.split(".")) or module_name.endswith(".py"):
        plain = module_name.removesuffix(".py").strip("./").replace("/", ".")
        raise InputError(f"{uses!r} does not name a module of Python; did you mean '{plain}:{function_name}'?")
    try:
        module = _import(module_name, folder)
    except ModuleNotFoundError as error:
        if error.name and f"{module_name}.".startswith(f"{error.name}."):
            raise InputError(f"there is no module {error.name!r} (for {uses!r}); also looked in {folder}") from error
        raise ImportFaultError("", [_import_fault(module_name, error)]) from error
    except EndedError as error:
        told = f"it ends its process when it is imported ({error}); let it do so only as a program"
        told = f"module {module_name!r} cannot be imported: {told}, `if __name__ == '__main__'`"
        raise ImportExitError(told) from error
    except InputError:  # of ours: it is hidden by another one
        raise
    except Exception as error:
        raise ImportFaultError("", [_import_fault(module_name, error)]) from error
    found = getattr(module, function_name, None)
    if isinstance(found, FaultyStep):
        raise ImportFaultError("", found.error.faults)
    if isinstance(found, Step) or inspect.isfunction(found):
        return found
    own = vars(module).items() if isinstance(module, ModuleType) else ()
    names = [name for name, value in own if isinstance(value, Step) or _is_of(value, module_name)]
    hint = nearest(function_name, names, "it has")
    raise InputError(f"module {module_name!r} has no function {function_name!r}; {hint}")


def _is_of(value: object, module: str) -> bool:
    """Return whether a value is a function of this module, and not one that it imports."""
    return inspect.isfunction(value) and value.__module__ == module


def _import_fault(module: str, error: Exception) -> Fault:
    """Return the fault of a module that cannot be imported, at the line of Python that is to be mended."""
    if isinstance(error, SyntaxError) and error.filename:
        told = f"module {module!r} cannot be read: {error.msg}: {(error.text or '').strip()}"
        return Fault(told, shown_path(error.filename), error.lineno, error.offset)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<")]
    frames = [frame for frame in frames if Path(frame.filename) not in _OWN_FRAMES]
    told = f"module {module!r} cannot be imported: {type(error).__name__}: {error}"
    if isinstance(error, ModuleNotFoundError) and error.name:
        near = nearest_word(error.name, (*sys.stdlib_module_names, *metadata.packages_distributions()))
        way_out = f"did you mean {near!r}?" if near else f"install it for {sys.executable}, or correct the name"
        told = f"module {module!r} cannot be imported: no module {error.name!r} is installed; {way_out}"
    if not frames:
        return Fault(told)
    place = next((frame for frame in reversed(frames) if "site-packages" not in frame.filename), frames[-1])
    return Fault(f"{told} ({place.line})" if place.line else told, shown_path(place.filename), place.lineno)


_OWN_FRAMES = {Path(__file__), Path(importlib.__file__)}


def checked_params(
    step: Step[..., Any], given: Mapping[str, object], pending: Collection[str] = ()
) -> dict[str, object]:
    """All parameters in canonical form, defaults filled in; of a secret one, its digest.

    InputError for unknown, missing or ill-typed ones, all of them.
    """
    return canonical_params(validated_params(step, given, pending), step)


def validated_params(
    step: Step[..., Any], given: Mapping[str, object], pending: Collection[str] = ()
) -> dict[str, object]:
    """All parameters as the function is given them: converted to what it is annotated with, defaults filled in.

    `pending` ones stay as they are.
    """
    specs = {spec.name: spec for spec in step.parameters}
    faults = []
    for name in given:
        if name not in specs:
            hint = nearest(name, specs, "it has")
            told = f"step {step.name!r} has no parameter {name!r}; {hint}"
            if name == step.facts:
                told = f"step {step.name!r} is given {name!r}, the facts about its parents, by Crucible; take it out"
            faults.append(Fault(told, location=("params", name)))
    values = {}
    for name, spec in specs.items():
        try:
            values[name] = given[name] if name in pending else _validated(step.name, spec, given)
        except InputError as error:
            # One that is not given has no place of its own, and is perhaps there by a name that is wrong.
            if name in given or not any(nearest_word(other, [name]) for other in given.keys() - specs.keys()):
                faults.append(Fault(str(error), location=("params", name, "value") if name in given else ("params",)))
    if faults:
        raise InputError("", faults)
    return values


def _validated(step: str, spec: ParameterSpec, given: Mapping[str, object]) -> object:
    if spec.name not in given:
        if spec.default is inspect.Parameter.empty:
            raise InputError(f"step {step!r} needs the parameter {spec.name!r}, which has no default")
        return spec.default
    if spec.annotation is inspect.Parameter.empty:
        return given[spec.name]
    try:
        return _adapter(spec.annotation).validate_python(given[spec.name])
    except PydanticSchemaGenerationError:
        return given[spec.name]  # a class that pydantic cannot check
    except ValidationError as error:
        shown = "a secret" if spec.secret else repr(given[spec.name])
        fault = "it is of the wrong type" if spec.secret else error.errors()[0]["msg"]
        raise InputError(f"parameter {spec.name!r} of step {step!r} is {shown}: {fault}") from None


def _adapter(annotation: Any) -> TypeAdapter[Any]:
    try:
        return _kept_adapter(annotation)
    except TypeError:  # an annotation that cannot be a key
        return TypeAdapter(annotation)


@functools.lru_cache(maxsize=256, typed=True)
def _kept_adapter(annotation: Any) -> TypeAdapter[Any]:
    return TypeAdapter(annotation)


def _package_faults(step: Step[..., Any]) -> Iterator[Fault]:
    for package in sorted(step.packages):
        try:
            metadata.version(package)
        except metadata.PackageNotFoundError:
            yield Fault(f"step {step.name!r} lists the package {package!r}, which is not installed here")


def _import(name: str, folder: Path) -> object:
    """The module; the declaration's folder comes last in the search, so that it hides nothing that is installed."""
    with contained(), compiling_source():
        search_first(folder)
        token = in_declaration.set(True)
        try:
            module = importlib.import_module(name)
        finally:
            in_declaration.reset(token)
    beside = folder.joinpath(*name.split(".")).with_suffix(".py")
    taken = getattr(module, "__file__", None)
    if taken and beside.is_file() and not beside.samefile(taken):
        raise InputError(f"module {name!r} is {taken}, and hides {beside}; rename one of them")
    return module


_compiling_lock, _compiled_by = threading.Lock(), 0
_stats = SourceFileLoader.path_stats


@contextmanager
def compiling_source() -> Iterator[None]:
    """Compile the modules of which the fingerprint is from their source in this block, in all threads.

    Python takes bytecode for that of a source if both have the same size and second: who edits, runs and edits again at
    once, or copies files with their times, would run other code than that of which the fingerprint is.
    """
    global _compiled_by
    with _compiling_lock:  # a loader of another class would make other fingerprints, so this one is changed
        SourceFileLoader.path_stats = _path_stats  # type: ignore[method-assign, assignment]
        _compiled_by += 1
    try:
        yield
    finally:
        with _compiling_lock:
            _compiled_by -= 1
            if not _compiled_by:
                SourceFileLoader.path_stats = _stats  # type: ignore[method-assign]


def _path_stats(loader: SourceFileLoader, path: str) -> Mapping[str, Any]:
    if is_first_party(loader.name, ""):
        raise OSError(f"the bytecode of {path} is not to be used")
    return _stats(loader, path)


# Where the modules of steps are looked for: what is installed, then the folder of their declaration, then others'.
#
# Two declarations may each have a module of one name beside them; each gets its own.


def search_first(folder: Path) -> None:
    """Modules are looked for in this folder before those of other declarations, and after all that is installed.

    What these have loaded under a name that stands for another module here is forgotten, with all from beside it.
    """
    name = str(folder)
    if name in sys.path and (name not in _searched or name == next(reversed(_searched))):
        return
    others = [other for other in _searched if other != name]
    if others:
        _forget_namesakes(folder, others)
    sys.path[:] = search_path(folder)
    _searched.pop(name, None)
    _searched[name] = None


def search_path(folder: Path) -> list[str]:
    """The search path for whoever runs a step of a declaration in this folder."""
    name = str(folder)
    if name in sys.path and name not in _searched:
        return list(sys.path)
    others = [entry for entry in reversed(_searched) if entry != name]
    return [*(entry for entry in sys.path if entry not in _searched), name, *others]


def _forget_namesakes(folder: Path, others: list[str]) -> None:
    loaded: dict[str, list[str]] = {other: [] for other in others}
    for name, module in list(sys.modules.items()):
        if (home := _home(name, module)) in loaded:
            loaded[home].append(name)
    for names in loaded.values():
        tops = {name.partition(".")[0] for name in names}
        if any((folder / f"{top}.py").is_file() or (folder / top).is_dir() for top in tops):
            for name in names:
                del sys.modules[name]


def _home(name: str, module: object) -> str:
    """The folder that a module was found in: that of its outermost package, if it is in one."""
    file = getattr(module, "__file__", None)
    if not isinstance(file, str):
        return ""
    levels = name.count(".") + (2 if file.endswith(f"{os.sep}__init__.py") else 1)
    return file.rsplit(os.sep, levels)[0]


INGESTED = "ingested"
_INGESTORS = "crucible_lineage.server.ingest.ingestors:read"

HEADER_FIELDS = ("timestamp", "measurement", "data_type", "session_name", "instrument_name", "instrument_id")


def header_function(uses: str, folder: Path) -> Any:
    """The function that is meant. InputError if there is none."""
    return find_function(_INGESTORS if uses == INGESTED else uses, folder)


def read_header(uses: str, folder: Path, path: Path, sha256: str, store: Store) -> dict[str, Any]:
    """{field: value, "metadata": {name: value}}. InputError if there is no such function, or with what failed in it."""
    asked = hashlib.sha256(canonical_json(["header", uses, str(folder), sha256, path.name])).hexdigest()
    kept = store.inspection(asked, RULES)
    if kept is None:
        function = header_function(uses, folder)
        kept = _read(function, uses, path)
        files = () if uses == INGESTED else code_fingerprint(function).files  # RULES tells our versions apart
        store.keep_inspection(asked, RULES, files, kept)
    fields = dict(kept)
    if "timestamp" in fields:
        fields["timestamp"] = datetime.fromisoformat(fields["timestamp"])
    return fields


def _read(function: Callable[[Path], object], uses: str, path: Path) -> dict[str, Any]:
    try:
        with contained():
            found = function(path)
    except EndedError as error:
        raise InputError(f"{uses} cannot read {path.name}: it ends its process ({error}); let it return") from error
    except Exception as error:
        raise InputError(f"{uses} cannot read {path.name}: {type(error).__name__}: {error}") from error
    if not isinstance(found, Mapping):
        raise InputError(f"{uses} gives a {type(found).__name__} for {path.name}; let it return a mapping")
    try:
        plain = plain_value(dict(found), "")
    except ValueFaultError as fault:
        raise InputError(f"{uses}: the value {fault.path.removeprefix('.')!r} for {path.name} {fault.reason}") from None
    if uses == INGESTED:  # whatever a file says, a parser writes nothing there
        plain = {name: value for name, value in plain.items() if not is_own(name)}
    if ours := [name for name in plain if is_own(name)]:
        raise InputError(
            f"{uses} gives {ours[0]!r} for {path.name}, which is kept for what is recorded; name it otherwise"
        )
    fields = {name: value for name, value in plain.items() if name in HEADER_FIELDS and value is not None}
    if "timestamp" in fields:
        fields["timestamp"] = _moment(uses, path, fields["timestamp"])
    return {**fields, "metadata": {name: value for name, value in plain.items() if name not in HEADER_FIELDS}}


def _moment(uses: str, path: Path, value: object) -> str:
    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        told = f"{uses} gives the timestamp {value!r} for {path.name}"
        raise InputError(f"{told}; write a time with its zone, as 2024-05-01T12:00:00+02:00")
    return moment.isoformat()
