"""What there is to know about a step before it runs: its inputs, outputs, checked parameters and code fingerprint.

All of it is plain data, so that it can be kept: an unchanged step is not imported again to be planned.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import inspect
import sys
from collections.abc import Mapping
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError

from crucible_lineage.errors import InputError
from crucible_lineage.fingerprint.params import canonical_params
from crucible_lineage.fingerprint.walk import code_fingerprint
from crucible_lineage.ids import canonical_json
from crucible_lineage.local.store import Store
from crucible_lineage.pipeline.bind.inspection import Inspection
from crucible_lineage.step import ParameterSpec, Step

__all__ = ["Inspection", "checked_params", "find_step", "inspect_step", "inspection_of", "validated_params"]


def inspect_step(uses: str, params: Mapping[str, Any], folder: Path, store: Store | None = None) -> Inspection:
    """The step that `module:function` names, with these parameters checked and completed by its defaults.

    InputError if there is no such function or it cannot take them. `folder` is searched for modules too.
    """
    asked = canonical_json([uses, canonical_params(params), str(folder), sys.version_info[:2]])
    key = hashlib.sha256(asked).hexdigest()  # a hash, since a parameter may be a secret
    kept = store.inspection(key) if store else None
    if kept is not None:
        return Inspection.from_json(kept)
    inspection = inspection_of(find_step(uses, folder), uses, params)
    if store and inspection.keepable:
        store.keep_inspection(key, inspection.files, asdict(inspection))
    return inspection


def inspection_of(step: Step[..., Any], uses: str, params: Mapping[str, Any]) -> Inspection:
    """The inspection of a step that is at hand."""
    fingerprint = code_fingerprint(step)
    return Inspection(
        uses=uses,
        step=step.name,
        roles={role.name: role.shape for role in step.inputs},
        required=tuple(role.name for role in step.inputs if role.required),
        outputs=step.outputs,
        params=checked_params(step, params),
        fingerprint=fingerprint.digest if step.version is None else f"version:{step.version}",
        not_covered=fingerprint.not_covered,
        packages={name: _version(step.name, name) for name in sorted(step.packages)},
        reached_packages=fingerprint.packages,
        source=fingerprint.source,
        measurement=step.measurement,
        data_type=step.data_type,
        thumbnail=step.thumbnail,
        keywords=step.keywords,
        files=fingerprint.files,
        # A listed package may be updated without any of the files changing; what concerns a secret is not kept at all.
        keepable=not step.packages and not any(spec.secret for spec in step.parameters),
    )


def find_step(uses: str, folder: Path) -> Step[..., Any]:
    """The step that `module:function` names; a plain function counts as a step without further description."""
    module_name, colon, function_name = uses.partition(":")
    if not colon or not module_name or not function_name:
        raise InputError(f"{uses!r} does not name a function; write module:function, as in mylab.raman:calibrate")
    try:
        module = _import(module_name, folder)
    except ModuleNotFoundError as error:
        if error.name and module_name.startswith(error.name):
            raise InputError(f"there is no module {error.name!r} (for {uses!r}); looked in {folder} too") from error
        raise InputError(f"module {module_name!r} needs {error.name!r}, which is not installed") from error
    except Exception as error:
        raise InputError(f"module {module_name!r} cannot be imported: {type(error).__name__}: {error}") from error
    found = getattr(module, function_name, None)
    if isinstance(found, Step):
        return found
    if inspect.isfunction(found):
        return Step(found)
    names = [name for name, value in vars(module).items() if isinstance(value, Step) or inspect.isfunction(value)]
    near = difflib.get_close_matches(function_name, names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise InputError(f"module {module_name!r} has no function {function_name!r}{hint}")


def checked_params(step: Step[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """All parameters in canonical form, defaults filled in; of a secret one, its digest.

    InputError for unknown, missing or ill-typed ones.
    """
    return canonical_params(validated_params(step, given), step)


def validated_params(step: Step[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """All parameters as the function is given them: converted to what it is annotated with, defaults filled in."""
    specs = {spec.name: spec for spec in step.parameters}
    for name in given:
        if name not in specs:
            near = difflib.get_close_matches(name, specs, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has: {', '.join(specs) or 'none'}"
            raise InputError(f"step {step.name!r} has no parameter {name!r}; {hint}")
    return {name: _validated(step.name, spec, given) for name, spec in specs.items()}


def _validated(step: str, spec: ParameterSpec, given: Mapping[str, Any]) -> Any:
    if spec.name not in given:
        if spec.default is inspect.Parameter.empty:
            raise InputError(f"step {step!r} needs the parameter {spec.name!r}, which has no default")
        return spec.default
    if spec.annotation is inspect.Parameter.empty:
        return given[spec.name]
    try:
        return TypeAdapter(spec.annotation).validate_python(given[spec.name])
    except PydanticSchemaGenerationError:
        return given[spec.name]  # a class that pydantic cannot check
    except ValidationError as error:
        shown = "a secret" if spec.secret else repr(given[spec.name])
        fault = "it is of the wrong type" if spec.secret else error.errors()[0]["msg"]
        raise InputError(f"parameter {spec.name!r} of step {step!r} is {shown}: {fault}") from None


def _version(step: str, package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError as error:
        raise InputError(f"step {step!r} lists the package {package!r}, which is not installed here") from error


def _import(name: str, folder: Path) -> Any:
    """The module; the declaration's folder comes last in the search, so that it hides nothing."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    module = importlib.import_module(name)
    beside = folder.joinpath(*name.split(".")).with_suffix(".py")
    taken = getattr(module, "__file__", None)
    if taken and beside.is_file() and not beside.samefile(taken):
        raise InputError(f"module {name!r} is {taken}, and hides {beside}; give one of them another name")
    return module
