"""A step: a plain function whose inputs are files of parent datasets and whose output folder becomes a child dataset.

    @step(measurement="Raman Spectroscopy", data_type="calibrated spectrum", thumbnail="*.png")
    def calibrate(spectrum: Path, axis: Path, *, degree: int = 3, out: Path) -> dict: ...

Positional parameters are inputs, keyword-only ones are parameters, and `out` is the folder to write into (a step with
several outputs has one keyword-only folder for each name in `outputs`). What it returns is the child's metadata.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, ParamSpec, TypeVar, get_args, get_origin, get_type_hints, overload

from crucible_lineage.errors import InputError
from crucible_lineage.ids import is_mfid
from crucible_lineage.refs import DatasetRef

__all__ = ["InputRole", "ParameterSpec", "Step", "StepRunner", "step", "step_runner"]

P = ParamSpec("P")
R = TypeVar("R")

StepRunner = Callable[["Step[..., Any]", Mapping[str, Any], Mapping[str, Any]], Any]
step_runner: ContextVar[StepRunner | None] = ContextVar("step_runner", default=None)


@dataclass(frozen=True)
class InputRole:
    """A named input: what the function wants to be given for it."""

    name: str
    shape: str  # "file": one path; "files": a list of paths; "named": a dict from file name to path
    required: bool = True


@dataclass(frozen=True)
class ParameterSpec:
    """A parameter with its annotation, for checking, and its default (inspect.Parameter.empty if it has none).

    Of a `secret` one only a digest enters ids and records.
    """

    name: str
    annotation: Any
    default: Any
    secret: bool = False


class Step(Generic[P, R]):
    """A function declared as a step. Called as it is, it is that function; where steps are registered, it registers."""

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
        self.inputs, self.parameters = _read_signature(function, self.outputs, tuple(secrets))

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """What the function returns; or the registered outputs, where steps are registered (`step_runner`)."""
        runner = step_runner.get()
        if runner is None:
            given = (*args, *kwargs.values())
            if any(_names_datasets(value) for value in given):
                raise InputError(
                    f"step {self.name} was called with datasets, but nothing here says where to register its result; "
                    "call it inside `with crucible_lineage.tasks.registering(project=...)`, or give it paths"
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
) -> Callable[[Callable[P, R]], Step[P, R]]: ...
def step(function: Callable[P, R] | None = None, /, **declared: Any) -> Any:
    """The function as a step.

    `measurement`, `data_type` and `keywords` describe the child; `thumbnail` is a glob for the file shown as its
    preview; `version` replaces the fingerprint of the code; `packages` are distributions whose versions belong to the
    identity; `secrets` are parameters of which only a digest enters ids and records (those annotated SecretStr are
    secret anyway); `name` is the step's name in the identity (by default the function's).
    """
    if function is not None:
        return Step(function)
    return lambda wrapped: Step(wrapped, **declared)


def _names_datasets(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(_names_datasets(item) for item in value)
    return isinstance(value, DatasetRef) or is_mfid(value)


def _read_signature(
    function: Callable[..., Any], outputs: tuple[str, ...], secrets: tuple[str, ...]
) -> tuple[tuple[InputRole, ...], tuple[ParameterSpec, ...]]:
    """Roles and parameters. InputError if the function cannot be a step."""
    place = f"step {function.__module__}:{function.__qualname__}"
    try:
        hints = get_type_hints(function)
    except NameError as error:
        raise InputError(f"{place}: its annotations cannot be resolved: {error}") from error
    roles, parameters, folders = [], [], set()
    for parameter in inspect.signature(function).parameters.values():
        annotation = hints.get(parameter.name, parameter.annotation)
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise InputError(f"{place}: *{parameter.name} is not possible; name every input and parameter")
        if parameter.name in outputs:
            folders.add(parameter.name)
        elif parameter.kind is parameter.KEYWORD_ONLY:
            secret = parameter.name in secrets or _is_secret(annotation)
            parameters.append(ParameterSpec(parameter.name, annotation, parameter.default, secret))
        else:
            required = parameter.default is parameter.empty
            roles.append(InputRole(parameter.name, _input_shape(place, parameter.name, annotation), required))
    for name in secrets:
        if name not in {parameter.name for parameter in parameters}:
            raise InputError(f"{place}: it has no parameter {name!r} to keep secret; parameters are keyword-only")
    if missing := [name for name in outputs if name not in folders]:
        raise InputError(f"{place}: it takes no folder {missing[0]!r} to write into; add `{missing[0]}: Path`")
    return tuple(roles), tuple(parameters)


def _is_secret(annotation: Any) -> bool:
    """True for pydantic's SecretStr and its like, also as `SecretStr | None`."""
    return hasattr(annotation, "get_secret_value") or any(_is_secret(part) for part in get_args(annotation))


def _input_shape(place: str, name: str, annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation in (Path, inspect.Parameter.empty):
        return "file"
    if origin in (list, Sequence) and arguments == (Path,):
        return "files"
    if origin in (dict, Mapping) and arguments == (str, Path):
        return "named"
    raise InputError(
        f"{place}: input {name!r} is annotated {annotation}, but an input is Path (one file), list[Path] (all files) "
        f"or dict[str, Path] (files by name); if it is a parameter, make it keyword-only (after `*`)"
    )
