"""A step: a plain function whose inputs are files of parent datasets and whose output folder becomes a child dataset.

    @step(measurement="Raman Spectroscopy", data_type="calibrated spectrum", thumbnail="*.png")
    def calibrate(spectrum: Path, axis: Path, *, degree: int = 3, out: Path) -> dict: ...

Positional parameters are inputs, keyword-only ones are parameters, and `out` is the folder to write into (a step with
several outputs has one keyword-only folder for each name in `outputs`). A keyword-only parameter annotated `Facts`
receives facts about the parents from Crucible. The function returns the child's metadata.
"""

from __future__ import annotations

import functools
import inspect
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Generic, NoReturn, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints, overload

from crucible_lineage.errors import Fault, InputError, shown_path
from crucible_lineage.ids import is_mfid
from crucible_lineage.refs import DatasetRef, Facts

P = ParamSpec("P")
R = TypeVar("R")

StepRunner = Callable[["Step[..., Any]", Mapping[str, Any], Mapping[str, Any]], Any]
in_declaration: ContextVar[bool] = ContextVar("in_declaration", default=False)
"""True while a module is imported for a pipeline: an invalid step is reported without failing the others."""
step_runner: ContextVar[StepRunner | None] = ContextVar("step_runner", default=None)
open_runners: list[StepRunner] = []  # of registering flows in this process, for threads without a context


@dataclass(frozen=True)
class InputRole:
    """A named input, and what the function receives for it.

    `shape` is "file" (a Path), "files" (a list of Paths, in the order of their datasets) or "named" (a dict from file
    name to Path).
    """

    name: str
    shape: str
    required: bool = True


def shaped(shape: str, files: Sequence[tuple[int, Path]]) -> object:
    """Return the files of an input, each with the number of its dataset, in a shape; equal names get the number."""
    if shape == "file":
        ((_, path),) = files
        return path
    if shape == "files":
        return [path for _, path in files]
    names = Counter(path.name for _, path in files)
    return {path.name if names[path.name] == 1 else f"{number}/{path.name}": path for number, path in files}


@dataclass(frozen=True)
class ParameterSpec:
    """A parameter with its annotation, for checking, and its default (inspect.Parameter.empty if it has none).

    Ids and records contain only a digest of a `secret` one.
    """

    name: str
    annotation: Any
    default: Any
    secret: bool = False


@contextmanager
def steps_run_by(runner: StepRunner) -> Iterator[None]:
    """Let a runner run the steps that are called in this block."""
    token = step_runner.set(runner)
    open_runners.append(runner)
    try:
        yield
    finally:
        step_runner.reset(token)
        open_runners.remove(runner)


class Step(Generic[P, R]):
    """A function declared as a step. A call runs the function, or registers its outputs where steps are registered.

    `inputs` and `parameters` follow from its signature; `facts` is the name of its parameter for facts, or empty.
    Calling it with datasets where steps are not registered raises InputError.
    """

    def __init__(
        self,
        function: Callable[P, R],
        *,
        name: str | None = None,
        measurement: str | None = None,
        data_type: str | None = None,
        outputs: Sequence[str] = ("out",),
        thumbnail: str | None = None,
        version: str | None = None,
        packages: Sequence[str] = (),
        secrets: Sequence[str] = (),
        keywords: Sequence[str] = (),
        reads: Sequence[str] = (),
    ) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.name = name or function.__name__
        self.measurement = measurement
        self.data_type = data_type
        self.outputs = tuple(outputs)
        self.thumbnail = thumbnail
        self.version = version
        self.packages = tuple(packages)
        self.keywords = tuple(keywords)
        self.reads = tuple(reads)
        try:
            self.inputs, self.parameters, self.facts = _read_signature(function, self.outputs, tuple(secrets))
        except InputError as error:
            code = getattr(inspect.unwrap(function), "__code__", None)
            place = (shown_path(code.co_filename), code.co_firstlineno) if code else ()
            raise InputError("", [Fault(str(error), *place)]) from error

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function. Return its value, or the registered outputs where steps are registered."""
        runner = _runner()
        if runner is None:
            if any(_names_datasets(value) for value in (*args, *kwargs.values())):
                raise InputError(
                    f"step {self.name} was called with datasets, but nothing here says where to register its result; "
                    "call it inside `with crucible_lineage.registering(project=...)` (in a Prefect flow: "
                    "crucible_lineage.tasks.registering), or give it paths"
                )
            return self.function(*args, **kwargs)
        bound = inspect.signature(self.function).bind_partial(*args, **kwargs).arguments
        roles = {role.name for role in self.inputs}
        return runner(  # type: ignore[no-any-return]
            self,
            {name: value for name, value in bound.items() if name in roles},
            {name: value for name, value in bound.items() if name not in roles},
        )

    def __repr__(self) -> str:
        return f"<step {self.function.__module__}:{self.function.__qualname__}>"


class FaultyStep:
    """Placeholder for a function that cannot be a step. Using it raises."""

    def __init__(self, error: InputError) -> None:
        self.error = error

    def __call__(self, *_: object, **__: object) -> NoReturn:
        """Raise the InputError."""
        raise self.error


@overload
def step(function: Callable[P, R], /) -> Step[P, R]: ...
@overload
def step(
    *,
    name: str | None = None,
    measurement: str | None = None,
    data_type: str | None = None,
    outputs: Sequence[str] = ("out",),
    thumbnail: str | None = None,
    version: str | None = None,
    packages: Sequence[str] = (),
    secrets: Sequence[str] = (),
    keywords: Sequence[str] = (),
    reads: Sequence[str] = (),
) -> Callable[[Callable[P, R]], Step[P, R]]: ...
def step(function: Callable[P, R] | None = None, /, **declared: Any) -> Any:
    """Declare a function as a step.

    `measurement`, `data_type` and `keywords` describe the child; `thumbnail` is a glob for the file shown as its
    preview; `version` replaces the fingerprint of the code; `packages` are distributions whose versions belong to the
    identity; `secrets` are parameters of which ids and records contain only a digest (like those annotated SecretStr);
    `reads` are files beside the module that the function reads, whose bytes belong to the identity; `name` is the
    step's name in the identity (by default the function's); `outputs` are the names of its folders, each of which
    becomes a dataset.

    An input is annotated `Path`, `list[Path]` or `dict[str, Path]`, each folder in `outputs` is a keyword-only `Path`,
    and a keyword-only `Facts` receives facts about the parents from Crucible. The function returns None or metadata
    that JSON can hold: a mapping (one output), or a mapping from output to mapping (several). Raises InputError if the
    function cannot be a step.
    """
    if function is not None:
        return _declared(function)
    return lambda wrapped: _declared(wrapped, **declared)


def _declared(function: Callable[P, R], **declared: Any) -> Step[P, R] | FaultyStep:
    try:
        return Step(function, **declared)
    except InputError as error:
        if not in_declaration.get():
            raise
        return FaultyStep(error)


def _runner() -> StepRunner | None:
    """Return the runner of the current context, or of the only open flow in a thread without a context."""
    runner = step_runner.get()
    if runner is None and len(open_runners) == 1 and step_runner not in copy_context():
        return open_runners[0]
    return runner


def _names_datasets(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        return any(_names_datasets(item) for item in value)
    return isinstance(value, DatasetRef) or is_mfid(getattr(value, "mfid", value))


def _read_signature(
    function: Callable[..., object], outputs: tuple[str, ...], secrets: tuple[str, ...]
) -> tuple[tuple[InputRole, ...], tuple[ParameterSpec, ...], str]:
    """Return roles, parameters, and the parameter for facts. Raises InputError if the function cannot be a step."""
    label = f"step {function.__module__}:{function.__qualname__}"
    try:
        hints = get_type_hints(function)
    except NameError as error:
        raise InputError(f"{label}: its annotations cannot be resolved: {error}") from error
    roles, parameters, folders, facts = [], [], set(), ""
    for parameter in inspect.signature(function).parameters.values():
        annotation = hints.get(parameter.name, parameter.annotation)
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise InputError(f"{label}: *{parameter.name} is not supported; name every input and parameter")
        if parameter.name in outputs:
            folders.add(parameter.name)
        elif _without_none(annotation) is Facts:
            if facts or parameter.kind is not parameter.KEYWORD_ONLY:
                fault = "a second one for facts" if facts else "for facts, and has to be keyword-only (after `*`)"
                raise InputError(f"{label}: the parameter {parameter.name!r} is {fault}")
            facts = parameter.name
        elif parameter.kind is parameter.KEYWORD_ONLY:
            secret = parameter.name in secrets or _is_secret(annotation)
            parameters.append(ParameterSpec(parameter.name, annotation, parameter.default, secret))
        else:
            required = parameter.default is parameter.empty
            shape = _input_shape(label, parameter.name, annotation if required else _without_none(annotation))
            roles.append(InputRole(parameter.name, shape, required))
    for name in secrets:
        if name not in {parameter.name for parameter in parameters}:
            raise InputError(f"{label}: it has no parameter {name!r} to keep secret; parameters are keyword-only")
    if missing := [name for name in outputs if name not in folders]:
        raise InputError(f"{label}: it has no parameter for the folder {missing[0]!r}; add `{missing[0]}: Path`")
    return tuple(roles), tuple(parameters), facts


def _without_none(annotation: object) -> Any:
    """Return `Path` for `Path | None`, the annotation of an optional input."""
    arguments = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else ()
    left = [argument for argument in arguments if argument is not NoneType]
    return left[0] if len(left) == 1 else annotation


def _is_secret(annotation: object) -> bool:
    """Return whether an annotation is pydantic's SecretStr or similar, also as `SecretStr | None`."""
    return hasattr(annotation, "get_secret_value") or any(_is_secret(part) for part in get_args(annotation))


def _input_shape(label: str, name: str, annotation: object) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation in (Path, inspect.Parameter.empty):
        return "file"
    if origin in (list, Sequence) and arguments == (Path,):
        return "files"
    if origin in (dict, Mapping) and arguments == (str, Path):
        return "named"
    shown = annotation.__name__ if isinstance(annotation, type) else annotation
    raise InputError(
        f"{label}: input {name!r} is annotated {shown}, but an input is Path (one file), list[Path] (all files) "
        f"or dict[str, Path] (files by name), with `| None = None` if it is optional; if it is a "
        "parameter, make it keyword-only (after `*`)"
    )
