"""A declaration read from its file: includes, defaults, overrides and variables resolved, then checked whole."""

from __future__ import annotations

import difflib
import hashlib
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from crucible_lineage.errors import Finding, InputError
from crucible_lineage.ids import canonical_json
from crucible_lineage.pipeline.declare.crux import crux_input, recipe_files
from crucible_lineage.pipeline.declare.faults import TOP_KEYS, finding_of
from crucible_lineage.pipeline.declare.variables import Variables
from crucible_lineage.pipeline.declare.yaml import Document, Location, read_document
from crucible_lineage.pipeline.spec.inputs import located
from crucible_lineage.pipeline.spec.pipeline import PipelineSpec

__all__ = ["load_pipeline"]

SHARED = ("inputs", "steps", "params", "defaults")  # what an included file may hold, beside `env` and `include`
DEFAULTS = ("output", "env", "retries", "timeout", "tags", "resources")


def load_pipeline(path: Path, overrides: Mapping[str, Any] | None = None) -> tuple[PipelineSpec, Document]:
    """The pipeline declared in a file. InputError with every fault, each with line, column and a suggestion.

    `overrides` holds values for one run: of a parameter of the pipeline (`degree`) or of a step (`axis.degree`).
    """
    return _Loader(path).load(overrides or {})


class _Loader:
    document: Document

    def __init__(self, path: Path) -> None:
        self.path = path
        self.findings: list[Finding] = []
        self.folders: dict[tuple[str, str], Path] = {}  # of each input and step: where it was declared

    def load(self, overrides: Mapping[str, Any]) -> tuple[PipelineSpec, Document]:
        document = self._read(self.path, ())
        data = document.data
        self.document = document
        if odd := list(_not_finite(data)):
            message = "this is no number that JSON can tell; give a finite one, or null for none"
            raise InputError("", [document.finding(location, message) for location in odd])
        digest = hashlib.sha256(canonical_json(data)).hexdigest()
        self._refuse_our_keys()
        self._override(data, overrides)
        self._apply_defaults(data)
        self._read_crux(data)
        variables = self._fill(data)
        if not overrides:  # a value that is set for this run may stand where the declaration has a reference
            self._check_taken(variables)
        for (part, name), folder in self.folders.items():
            if _takes_folder(part, declared := _mapping(data[part], name)):
                _give_folder(declared, folder)
        known = {name: value for name, value in data.items() if name not in ("defaults", "include")}
        try:
            spec = PipelineSpec.model_validate({**known, "path": self.path.absolute(), "digest": digest})
        except ValidationError as error:
            hidden = variables.secret_places
            self.findings += [finding_of(document, dict(fault), hidden) for fault in error.errors()]
            raise InputError("", _unique(self.findings)) from None
        if self.findings:
            raise InputError("", self.findings)
        return spec, document

    def _find(self, location: Location, message: str) -> None:
        self.findings.append(self.document.finding(location, message))

    def _read(self, path: Path, within: tuple[Path, ...]) -> Document:
        """The document in a file, with what it includes beneath its own."""
        document = read_document(path)
        if not isinstance(document.data, dict):
            message = "a pipeline is a mapping with the keys pipeline, project, steps"
            raise InputError("", [document.finding((), message)])
        for part in ("inputs", "steps"):
            self.folders |= {(part, name): path.absolute().parent for name in _mapping(document.data, part)}
        included = document.data.get("include", [])
        names: Any = [included] if isinstance(included, str) else included
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise InputError(
                "", [document.finding(("include",), "include takes the name of a file, or a list of them")]
            )
        own = dict(self.folders)
        for name in names:
            other = located(name, path.absolute().parent)
            if other.resolve() in {seen.resolve() for seen in (*within, path)}:
                raise InputError(
                    "", [document.finding(("include",), f"{name} includes itself, by way of others or not")]
                )
            if not other.is_file():
                raise InputError("", [document.finding(("include",), f"there is no file {other}")])
            _merge(document, self._read(other, (*within, path)))
        self.folders |= own  # what is declared here wins
        return document

    def _refuse_our_keys(self) -> None:
        data = self.document.data
        for key in ("path", "digest"):
            if key in data:
                near = difflib.get_close_matches(key, TOP_KEYS, n=1)
                self._find((key,), f"unknown key {key!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
                del data[key]
        for part, name in self.folders:
            entry = data[part][name]
            each = entry.get("each") if isinstance(entry, dict) else None
            several = enumerate(each) if isinstance(each, list) else ()
            entries = [((part, name), entry), *(((part, name, "each", number), one) for number, one in several)]
            for place, one in entries:
                for key in ("folder", "references"):
                    if isinstance(one, dict) and key in one:
                        self._find((*place, key), f"unknown key {key!r}")
                        del one[key]

    def _override(self, data: dict[str, Any], overrides: Mapping[str, Any]) -> None:
        """Values given for this run take the place of declared ones. InputError if there is nothing of that name."""
        steps, params = _mapping(data, "steps"), _mapping(data, "params")
        for name, value in overrides.items():
            step, dot, param = name.partition(".")
            if not dot:
                if name not in params:
                    raise InputError(_no_override(name, [*params, *(f"{known}.PARAMETER" for known in steps)]))
                params[name] = value
                continue
            if step not in steps:
                raise InputError(_no_override(name, [f"{known}.{param}" for known in steps]))
            declared = _mapping(steps, step)
            if param in _swept(declared.get("matrix")):
                raise InputError(f"--set {name}: the parameter {param!r} is swept by the matrix of step {step!r}")
            declared["params"] = {**_mapping(declared, "params"), param: value}

    def _apply_defaults(self, data: dict[str, Any]) -> None:
        defaults = data.get("defaults") or {}
        if not isinstance(defaults, dict):
            self._find(("defaults",), "defaults is a mapping, as in {retries: 2}")
            return
        for key in defaults:
            if key not in DEFAULTS:
                near = difflib.get_close_matches(key, DEFAULTS, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"possible here: {', '.join(DEFAULTS)}"
                self._find(("defaults", key), f"unknown key {key!r} in defaults; {hint}")
        known = {key: value for key, value in defaults.items() if key in DEFAULTS}
        steps = _mapping(data, "steps")
        for name, step in steps.items():
            if isinstance(step, dict):
                own = known if step.get("run") else {key: value for key, value in known.items() if key != "env"}
                steps[name] = {**own, **step, **_both(own, step, "output"), **_both(own, step, "env")}

    def _read_crux(self, data: dict[str, Any]) -> None:
        inputs = _mapping(data, "inputs")
        for name, declared in inputs.items():
            if isinstance(declared, dict) and "crux" in declared:
                try:
                    self.document.files.extend(recipe_files(declared, self.folders["inputs", name]))
                    inputs[name] = crux_input(declared, self.folders["inputs", name])
                except InputError as error:
                    self._find(("inputs", name, "crux"), str(error))
                    inputs[name] = {"select": {}}

    def _fill(self, data: dict[str, Any]) -> Variables:
        declared = data.get("env") if isinstance(data.get("env"), list) else []
        allowed = tuple(map(str, declared or ()))
        variables = Variables({}, allowed, os.environ, self._find)
        # The same with each variable of the environment left as a reference: what may be passed on.
        references = Variables({}, allowed, {name: f"${{env.{name}}}" for name in allowed}, lambda *_: None, True)
        params = data.pop("params", None)
        if params is not None and not isinstance(params, dict):
            self._find(("params",), "params is a mapping, as in {degree: 3}")
        params = params if isinstance(params, dict) else {}
        references.params = references.filled(params, ("params",))
        variables.params = variables.filled(params, ("params",))
        for part in ("project", "inputs", "schedule", "trigger"):
            if part in data:
                data[part] = variables.filled(data[part], (part,))
        steps = _mapping(data, "steps")
        for name, step in steps.items():
            if isinstance(step, dict):
                steps[name] = self._filled_step(name, step, variables, references)
        return variables

    def _check_taken(self, variables: Variables) -> None:
        """Every parameter that is declared here is taken somewhere; of included ones, other pipelines may take some."""
        for name in variables.params:
            if name not in variables.taken and ("params", name) not in self.document.names:
                hint = f"write ${{params.{name}}} where it belongs, or remove it"
                self._find(("params", name), f"nothing takes {name!r}; {hint}")

    def _filled_step(
        self, name: str, step: dict[str, Any], variables: Variables, references: Variables
    ) -> dict[str, Any]:
        if "${" in str(step.get("run", "")):
            self._find(("steps", name, "run"), "a command takes parameters as {params.NAME}; ${...} is for a shell")
        location = ("steps", name)
        filled = {k: v if k == "run" else variables.filled(v, (*location, k)) for k, v in step.items()}
        if "env" in step:  # what a command is given is filled in when it is called, and written down nowhere
            filled["env"] = references.filled(step["env"], (*location, "env"))
        given = step.get("params")
        if isinstance(given, dict):
            kept = references.filled(given, (*location, "params"))
            filled["references"] = {k: kept[k] for k in given if repr(kept[k]) != repr(filled["params"][k])}
        return filled


def _merge(document: Document, other: Document) -> None:
    """What the other document declares is in this one, unless it is declared here."""
    document.files.extend(other.files)
    for part in SHARED:
        theirs = other.data.get(part) or {}
        if not isinstance(theirs, dict):
            raise InputError("", [other.finding((part,), f"{part} is a mapping")])
        ours = document.data.setdefault(part, {})
        if not isinstance(ours, dict):
            raise InputError("", [document.finding((part,), f"{part} is a mapping")])
        for name, value in theirs.items():
            if name in ours:
                continue
            ours[name] = value
            document.names[part, name] = other.names.get((part, name), other.name)
            document.marks.update({place: mark for place, mark in other.marks.items() if place[:2] == (part, name)})
        if not ours:
            del document.data[part]
    theirs, ours = other.data.get("env") or [], document.data.get("env") or []
    if not isinstance(theirs, list):
        raise InputError("", [other.finding(("env",), "env is a list of names, as in [LAB_TOKEN]")])
    if isinstance(ours, list):  # else it is found later
        document.data["env"] = [*ours, *theirs]
    if unknown := [key for key in other.data if key not in (*SHARED, "env", "include")]:
        message = f"{unknown[0]!r} cannot be included; an included file has {', '.join((*SHARED, 'env'))}"
        raise InputError("", [other.finding((unknown[0],), message)])


def _swept(matrix: Any) -> set[str]:
    parts = matrix if isinstance(matrix, list) else [matrix]
    return {name for part in parts if isinstance(part, dict) for name in part}


def _mapping(data: Mapping[str, Any], key: str) -> dict[str, Any]:
    """What stands under a key, if it is a mapping; that it has to be one is found later, with its place."""
    found = data.get(key)
    return found if isinstance(found, dict) else {}


def _both(defaults: Mapping[str, Any], step: Mapping[str, Any], key: str) -> dict[str, Any]:
    ours, theirs = step.get(key), defaults.get(key)
    return {key: {**theirs, **ours}} if isinstance(ours, dict) and isinstance(theirs, dict) else {}


def _takes_folder(part: str, declared: Mapping[str, Any]) -> bool:
    return part == "steps" or isinstance(declared.get("each"), list) or "file" in declared or "pipeline" in declared


def _give_folder(declared: dict[str, Any], folder: Path) -> None:
    """Where it was declared, for relative paths; in a list of datasets, for each that is given by files."""
    if isinstance(declared.get("each"), list):
        for entry in declared["each"]:
            if isinstance(entry, dict) and "dataset" not in entry:
                entry["folder"] = folder
    else:
        declared["folder"] = folder


def _no_override(name: str, possible: list[str]) -> str:
    near = difflib.get_close_matches(name, possible, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(possible) or 'none'}"
    return f"--set {name}: there is nothing of that name to set; {hint}"


def _unique(findings: list[Finding]) -> list[Finding]:
    return list(dict.fromkeys(findings))


def _not_finite(value: Any, location: Location = ()) -> Iterator[Location]:
    """Where a number stands that JSON cannot tell."""
    if isinstance(value, (dict, list)):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _not_finite(part, (*location, key))
    elif isinstance(value, float) and not math.isfinite(value):
        yield location
