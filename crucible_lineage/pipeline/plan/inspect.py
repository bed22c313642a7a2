"""Inspection of steps before they run: inputs, outputs, checked parameters and code fingerprint.

Inspections are plain data and are cached: planning does not import an unchanged step again.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import inspect
import os
import sys
import sysconfig
import threading
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from importlib import metadata
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from crucible_lineage import __version__
from crucible_lineage.core.store import Store
from crucible_lineage.errors import Fault, InputError, nearest, nearest_word, shown_path
from crucible_lineage.fingerprint.functions import EndedError, contained
from crucible_lineage.fingerprint.source import is_first_party
from crucible_lineage.fingerprint.values import ValueFaultError, plain_value
from crucible_lineage.fingerprint.walk import Fingerprint, canonical_params, code_fingerprint
from crucible_lineage.ids import CODE_TAG, RECIPE_TAGS, canonical_json
from crucible_lineage.json_types import JsonObject
from crucible_lineage.machine.checksums import file_sha256
from crucible_lineage.marks import is_own
from crucible_lineage.provenance.recipe import StepCode
from crucible_lineage.refs import DESCRIPTIVE
from crucible_lineage.step import FaultyStep, ParameterSpec, Step, in_declaration
from crucible_lineage.text.masking import WAY_OUT, learn, masked

if TYPE_CHECKING:  # workers do without declarations
    from crucible_lineage.pipeline.declare.inputs import DatasetFields


BOUND = "bound/2"  # counts changes of how declarations are bound
# Version of the rules of inspection. Inspections under other rules are not used: they would give other ids.
RULES = " ".join(
    (__version__, BOUND, CODE_TAG.decode().strip(), RECIPE_TAGS[2].decode().strip(), sys.version.split()[0])
)


def with_reads(inspection: Inspection, files: Mapping[str, Path]) -> Inspection:
    """Make the bytes of files that a step reads part of its fingerprint. Raises InputError if one is missing."""
    if not files:
        return inspection
    missing = [path for path in files.values() if not path.is_file()]
    if missing:
        raise InputError("", [Fault(f"reads: there is no file {path}", location=("reads",)) for path in missing])
    read = {name: file_sha256(path) for name, path in files.items()}
    code = canonical_json([inspection.fingerprint, read])
    return replace(
        inspection,
        fingerprint=hashlib.sha256(b"crucible-lineage/reads/1\n" + code).hexdigest(),
        pieces={**inspection.pieces, **{f"file {name}": f"# {sha256}" for name, sha256 in read.items()}},
        files=tuple(dict.fromkeys((*inspection.files, *map(str, files.values())))),
    )


@dataclass(frozen=True)
class Inspection:
    """A step as it is now, with the parameters that it would be given."""

    uses: str
    step: str
    roles: Mapping[str, str]  # role -> shape, see step.InputRole
    required: tuple[str, ...]
    outputs: tuple[str, ...]
    params: Mapping[str, object]
    fingerprint: str
    not_covered: tuple[str, ...] = ()
    packages: Mapping[str, str] = field(default_factory=dict)  # those listed by the step: part of the identity
    reached_packages: tuple[str, ...] = ()
    source: str = ""
    measurement: str | None = None
    data_type: str | None = None
    thumbnail: str | None = None
    keywords: tuple[str, ...] = ()
    pieces: Mapping[str, str] = field(default_factory=dict)  # what the function uses, readable: text, value or hash
    files: tuple[str, ...] = ()  # the source files that it depends on
    facts: str = ""  # the parameter for facts about its parents; empty without one
    keepable: bool = False  # False if it depends on more: listed packages, programs, secrets

    @property
    def code(self) -> StepCode:
        """The part that enters the recipe."""
        return StepCode(self.step, self.fingerprint, self.packages)

    def described(self, output: DatasetFields) -> dict[str, object]:
        """Return the descriptive fields of its results: those of the step, and the declared ones, which win."""
        own = {"measurement": self.measurement, "data_type": self.data_type}
        return {name: value for name, value in own.items() if value is not None} | output.descriptive

    @classmethod
    def from_json(cls, stored: object) -> Inspection | None:
        """Return an inspection from JSON; None unless it has exactly the fields of this version."""
        if not isinstance(stored, dict) or stored.keys() != _NAMES:
            return None
        if not all(isinstance(stored[name], list) for name in _TUPLES):
            return None
        return cls(**{**stored, **{name: tuple(stored[name]) for name in _TUPLES}})


_NAMES = {item.name for item in fields(Inspection)}
_TUPLES = ("required", "outputs", "not_covered", "reached_packages", "keywords", "files")


_searched: dict[str, None] = {}  # folders of declarations on the search path, the latest last


class ImportFaultError(InputError):
    """The module of a step cannot be imported. The fault names the line of Python."""


MOST_UNUSED = 1000  # parameters that are kept although no step of the declaration has them now


@dataclass
class _Function:
    """A function as inspected, without parameters; those checked, by a digest of what was given; those asked for.

    `step` is the imported function, if something about it was not stored.
    """

    inspection: Inspection | None = None
    checked: dict[str, JsonObject] = field(default_factory=dict)
    asked: set[str] = field(default_factory=set)
    step: Step[..., Any] | None = None


class Inspector:
    """Inspects the steps of one pipeline: each function once, however many steps use it.

    What it finds is kept by function, valid while no file changes, with the parameters of all steps that use it.
    """

    def __init__(self, store: Store | None) -> None:
        self._store = store
        self._functions: dict[str, _Function] = {}

    def inspect(
        self,
        uses: str,
        params: Mapping[str, object],
        folder: Path,
        pending: Collection[str] = (),
        reads: Sequence[str] = (),
    ) -> Inspection:
        """Inspect the step `module:function` with these parameters, checked and completed by its defaults.

        `folder` is searched for modules too. The values of `pending` parameters are not known yet and stay as
        declared. `reads` are files in `folder`. Raises InputError if the function does not exist or refuses the
        parameters.
        """
        query = "\n".join(("function", uses, str(folder), *reads))
        found = self._functions.get(query) or self._functions.setdefault(query, self._stored(query))
        request = canonical_json([canonical_params(params), sorted(pending)])
        given = hashlib.sha256(request).hexdigest()  # a hash, since a parameter may be a secret
        found.asked.add(given)
        if given not in found.checked:
            step = found.step or find_step(uses, folder)
            checked = checked_params(step, params, pending)
            if found.step is None:
                inspection = _inspection(step, uses, {}, code_fingerprint(step))
                found.inspection, found.step = with_reads(inspection, {name: folder / name for name in reads}), step
            found.checked[given] = checked
        assert found.inspection is not None
        return Inspection(**{**vars(found.inspection), "params": found.checked[given]})

    def _stored(self, query: str) -> _Function:
        stored = self._store.inspection(query, RULES) if self._store else None
        if isinstance(stored, dict) and (inspection := Inspection.from_json(stored.get("inspection"))):
            return _Function(inspection, stored["checked"])
        return _Function()

    def keep(self) -> None:
        """Store what was new."""
        entries = []
        for query, found in self._functions.items():
            if found.step is None or found.inspection is None or not found.inspection.keepable:
                continue
            if len(found.checked) - len(found.asked) > MOST_UNUSED:
                found.checked = {given: found.checked[given] for given in found.asked if given in found.checked}
            result = {"inspection": vars(found.inspection), "checked": found.checked}
            entries.append((query, found.inspection.files, result))
        if self._store and entries:
            self._store.keep_inspections(RULES, entries)


def inspection_of(step: Step[..., Any], uses: str, params: Mapping[str, object]) -> Inspection:
    """Inspect an imported step. Raises InputError with all faults of its parameters and packages."""
    checked = checked_params(step, params)
    return _inspection(step, uses, checked, code_fingerprint(step))


def _inspection(step: Step[..., Any], uses: str, params: JsonObject, fingerprint: Fingerprint) -> Inspection:
    if fingerprint.secrets:
        where = ", ".join(fingerprint.secrets)
        raise InputError(f"step {step.name!r}: there is a secret in its code ({where}), and so in its id; {WAY_OUT}")
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
        # A listed package may be updated without a change of these files; nothing about a secret is stored.
        keepable=not step.packages and not any(spec.secret for spec in step.parameters),
    )
    return with_reads(inspection, {name: beside / name for name in step.reads})


def find_step(uses: str, folder: Path) -> Step[..., Any]:
    """Return the step `module:function`; a plain function becomes a step without further description."""
    function = find_function(uses, folder)
    return function if isinstance(function, Step) else Step(function)


def find_function(uses: str, folder: Path) -> Any:
    """Import and return the function or step `module:function`, from an installed module or one in `folder`."""
    module_name, colon, function_name = uses.partition(":")
    if not colon or not module_name or not function_name:
        raise InputError(f"{uses!r} does not name a function; write module:function, as in mylab.raman:calibrate")
    if not all(part.isidentifier() for part in module_name.split(".")) or module_name.endswith(".py"):
        plain = module_name.removesuffix(".py").strip("./").replace("/", ".")
        raise InputError(f"{uses!r} does not name a Python module; did you mean '{plain}:{function_name}'?")
    try:
        module = _import(module_name, folder)
    except ModuleNotFoundError as error:
        if error.name and f"{module_name}.".startswith(f"{error.name}."):
            raise InputError(f"there is no module {error.name!r} (for {uses!r}); also looked in {folder}") from error
        raise ImportFaultError("", [_import_fault(module_name, error)]) from error
    except EndedError as error:
        message = f"it ends its process when it is imported ({error}); do so only under `if __name__ == '__main__'`"
        raise InputError(f"module {module_name!r} cannot be imported: {message}") from error
    except InputError:  # raised by `_import` for a hidden module
        raise
    except Exception as error:
        raise ImportFaultError("", [_import_fault(module_name, error)]) from error
    function = getattr(module, function_name, None)
    if isinstance(function, FaultyStep):
        raise ImportFaultError("", function.error.faults)
    if isinstance(function, Step) or inspect.isfunction(function):
        return function
    own = vars(module).items() if isinstance(module, ModuleType) else ()
    names = [
        name
        for name, value in own
        if isinstance(value, Step) or (inspect.isfunction(value) and value.__module__ == module_name)
    ]
    hint = nearest(function_name, names, "it has")
    raise InputError(f"module {module_name!r} has no function {function_name!r}; {hint}")


def _import_fault(module: str, error: Exception) -> Fault:
    """Return the fault of a module that cannot be imported, at the line of Python to correct."""
    if isinstance(error, SyntaxError) and error.filename:
        message = f"module {module!r} cannot be read: {error.msg}: {(error.text or '').strip()}"
        return Fault(message, shown_path(error.filename), error.lineno, error.offset)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<")]
    frames = [frame for frame in frames if Path(frame.filename) not in _OWN_FRAMES]
    message = f"module {module!r} cannot be imported: {type(error).__name__}: {error}"
    if isinstance(error, ModuleNotFoundError) and error.name:
        near = nearest_word(error.name, (*sys.stdlib_module_names, *metadata.packages_distributions()))
        remedy = f"did you mean {near!r}?" if near else f"install it for {sys.executable}, or correct the name"
        message = f"module {module!r} cannot be imported: no module {error.name!r} is installed; {remedy}"
    if not frames:
        return Fault(message)
    frame = next((frame for frame in reversed(frames) if "site-packages" not in frame.filename), frames[-1])
    return Fault(f"{message} ({frame.line})" if frame.line else message, shown_path(frame.filename), frame.lineno)


_OWN_FRAMES = {Path(__file__), Path(importlib.__file__)}


def checked_params(
    step: Step[..., Any], given: Mapping[str, object], pending: Collection[str] = ()
) -> dict[str, object]:
    """Return all parameters in canonical form, secrets as digests. Raises InputError with all faults."""
    faults = []
    for package in sorted(step.packages):
        try:
            metadata.version(package)
        except metadata.PackageNotFoundError:
            faults.append(Fault(f"step {step.name!r} lists the package {package!r}, which is not installed"))
    try:
        checked = canonical_params(validated_params(step, given, pending), step)
        faults += secret_faults(step.name, checked)
    except InputError as error:
        raise InputError("", [*faults, *error.faults]) from None
    if faults:
        raise InputError("", faults)
    return checked


def secret_faults(step: str, params: Mapping[str, object]) -> Iterator[Fault]:
    """Yield a fault for each parameter that is or holds a secret, on which an id must not depend."""
    learn()
    for name, value in params.items():
        if masked({name: value}) != {name: value}:
            message = f"parameter {name!r} of step {step!r} is or holds a secret, which would be in its id and record"
            way_out = f"name it in @step(secrets=[{name!r}]), or {WAY_OUT}"
            yield Fault(f"{message}; {way_out}", location=("params", name, "value"))


def validated_params(
    step: Step[..., Any], given: Mapping[str, object], pending: Collection[str] = ()
) -> dict[str, object]:
    """Return all parameters as the function gets them, converted, with defaults; `pending` ones unchanged."""
    specs = {spec.name: spec for spec in step.parameters}
    faults = []
    for name in given:
        if name not in specs:
            hint = nearest(name, specs, "it has")
            message = f"step {step.name!r} has no parameter {name!r}; {hint}"
            if name == step.facts:
                message = f"step {step.name!r} is given {name!r}, the facts about its parents, by Crucible; remove it"
            faults.append(Fault(message, location=("params", name)))
    values = {}
    for name, spec in specs.items():
        try:
            values[name] = given[name] if name in pending else _validated(step.name, spec, given)
        except InputError as error:
            # A missing one has no location, and may be present under a misspelt name.
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
    from pydantic import PydanticSchemaGenerationError, ValidationError  # which workers do without

    try:
        try:
            adapter = _cached_adapter(spec.annotation)
        except TypeError:  # an annotation that cannot be a key
            adapter = _cached_adapter.__wrapped__(spec.annotation)
        return adapter.validate_python(given[spec.name])
    except PydanticSchemaGenerationError:
        return given[spec.name]  # a class that pydantic cannot check
    except ValidationError as error:
        shown = "a secret" if spec.secret else repr(given[spec.name])
        fault = "it is of the wrong type" if spec.secret else error.errors()[0]["msg"]
        raise InputError(f"parameter {spec.name!r} of step {step!r} is {shown}: {fault}") from None


@functools.lru_cache(maxsize=256, typed=True)  # making one takes half a millisecond
def _cached_adapter(annotation: Any) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(annotation)


def _import(name: str, folder: Path) -> object:
    """Import a module. The declaration's folder is searched last, so that it hides no installed module."""
    with contained(), compiling_source():
        search_first(folder)
        token = in_declaration.set(True)
        try:
            module = importlib.import_module(name)
        finally:
            in_declaration.reset(token)
    own = folder.joinpath(*name.split(".")).with_suffix(".py")
    loaded = getattr(module, "__file__", None)
    if loaded and own.is_file() and not own.samefile(loaded):
        raise InputError(f"module {name!r} is {loaded}, and hides {own}; rename one of them")
    return module


_compiling_lock, _compiled_by = threading.Lock(), 0
_stats = SourceFileLoader.path_stats


@contextmanager
def compiling_source() -> Iterator[None]:
    """Compile first-party modules from source here: bytecode may be older than a quick edit, or a dated copy."""
    global _compiled_by
    sysconfig.get_paths()  # begins by importing a module, for which `is_first_party` would need these paths
    with _compiling_lock:  # patched in place, since another loader class would change fingerprints
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
        raise OSError(f"the bytecode of {path} is not used")
    return _stats(loader, path)


# Search order for modules of steps: installed ones, the folder of the declaration, then those of other declarations.
#
# Two declarations may each have a module of the same name; each gets its own.


def search_first(folder: Path) -> None:
    """Search this folder before those of other declarations; unload their modules of names that exist here."""
    name = str(folder)
    if name in sys.path and (name not in _searched or name == next(reversed(_searched))):
        return
    loaded: dict[str, list[str]] = {other: [] for other in _searched if other != name}
    for module_name, module in list(sys.modules.items()) if loaded else ():
        if isinstance(file := getattr(module, "__file__", None), str):
            levels = module_name.count(".") + (2 if file.endswith(f"{os.sep}__init__.py") else 1)
            home = file.rsplit(os.sep, levels)[0]  # the folder that contains its outermost package
            if home in loaded:
                loaded[home].append(module_name)
    for names in loaded.values():
        tops = {module_name.partition(".")[0] for module_name in names}
        if any((folder / f"{top}.py").is_file() or (folder / top).is_dir() for top in tops):
            for module_name in names:
                del sys.modules[module_name]
    sys.path[:] = search_path(folder)
    _searched.pop(name, None)
    _searched[name] = None


def search_path(folder: Path) -> list[str]:
    """Return the search path for running steps of a declaration in this folder."""
    name = str(folder)
    if name in sys.path and name not in _searched:
        return list(sys.path)
    others = [entry for entry in reversed(_searched) if entry != name]
    return [*(entry for entry in sys.path if entry not in _searched), name, *others]


INGESTED = "ingested"
_INGESTORS = "crucible_lineage.server.ingest:read"


def header_function(uses: str, folder: Path) -> Any:
    """Return the function that reads headers. Raises InputError if it does not exist."""
    return find_function(_INGESTORS if uses == INGESTED else uses, folder)


def read_header(uses: str, folder: Path, path: Path, sha256: str, store: Store) -> JsonObject:
    """Return {field: value, "metadata": {name: value}} read from a file. Raises InputError if that fails."""
    key = hashlib.sha256(canonical_json(["header", uses, str(folder), sha256, path.name])).hexdigest()
    header = store.inspection(key, RULES)
    if header is None:
        function = header_function(uses, folder)
        header = _read(function, uses, path)
        files = () if uses == INGESTED else code_fingerprint(function).files  # RULES include our version
        store.keep_inspections(RULES, [(key, files, header)])
    fields = dict(header)
    if "timestamp" in fields:
        fields["timestamp"] = datetime.fromisoformat(fields["timestamp"])
    return fields


def _read(function: Callable[[Path], object], uses: str, path: Path) -> JsonObject:
    try:
        with contained():
            result = function(path)
    except EndedError as error:
        raise InputError(f"{uses} cannot read {path.name}: it ends its process ({error}); let it return") from error
    except Exception as error:
        raise InputError(f"{uses} cannot read {path.name}: {type(error).__name__}: {error}") from error
    if not isinstance(result, Mapping):
        raise InputError(f"{uses} gives a {type(result).__name__} for {path.name}; let it return a mapping")
    try:
        plain = plain_value(dict(result), "")
    except ValueFaultError as fault:
        raise InputError(f"{uses}: the value {fault.path.removeprefix('.')!r} for {path.name} {fault.reason}") from None
    if uses == INGESTED:  # reserved names in a file are ignored
        plain = {name: value for name, value in plain.items() if not is_own(name)}
    if ours := [name for name in plain if is_own(name)]:
        raise InputError(
            f"{uses} gives {ours[0]!r} for {path.name}, which is reserved for the provenance record; rename it"
        )
    described = ("timestamp", *DESCRIPTIVE)
    fields = {name: value for name, value in plain.items() if name in described and value is not None}
    if "timestamp" in fields:
        stamp = fields["timestamp"]
        try:
            moment = datetime.fromisoformat(str(stamp))
        except ValueError:
            moment = None
        if moment is None or moment.tzinfo is None:
            message = f"{uses} gives the timestamp {stamp!r} for {path.name}"
            raise InputError(f"{message}; write a time with its zone, as 2024-05-01T12:00:00+02:00")
        fields["timestamp"] = moment.isoformat()
    return {**fields, "metadata": {name: value for name, value in plain.items() if name not in described}}
