"""Write commands.schema.json, what commands print with --json: `python docs/commands_schema.py`, or `make schema`.

It follows from the types of the answers, and, for commands that change something, from the types of what they did.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from crucible_lineage import ask
from crucible_lineage.ask.answer import Done
from crucible_lineage.ask.impact import RequestedDeletion
from crucible_lineage.ask.lineage import Lineage
from crucible_lineage.ask.listing import JSON, columns_at
from crucible_lineage.ask.plans import PlanAnswer
from crucible_lineage.ask.question import COMMAND, questions_at
from crucible_lineage.ask.runs import ListedRun
from crucible_lineage.ask.view import DatasetView
from crucible_lineage.cli.check import CheckedFile
from crucible_lineage.core.folders import Leftover
from crucible_lineage.core.journal import Failure, ResultRow
from crucible_lineage.errors import Fault
from crucible_lineage.flows.deploying import DeploymentState
from crucible_lineage.json_types import json_keys
from crucible_lineage.pipeline.plan.corrections import FieldChange
from crucible_lineage.pipeline.run.result import RunResult
from crucible_lineage.registration.outbox import SetAside
from crucible_lineage.remake.driver import Outcome
from crucible_lineage.remake.reproduce import RestoredFile
from crucible_lineage.server.backup import Backup
from crucible_lineage.standing.standings import Standing
from crucible_lineage.statements.calibrations import Certificate
from crucible_lineage.statements.effects import AppliedStatement
from crucible_lineage.statements.failed import FailedRun
from crucible_lineage.statements.statements import About, Doubt, Statement
from crucible_lineage.statements.stating import StatementOutcome

TARGET = Path(__file__).with_name("commands.schema.json")
MFID = {"description": "the id of a dataset or sample", "type": "string", "pattern": "^[0-9a-hjkmnp-tv-z]{26}$"}
PRIMITIVE = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}


@dataclass(frozen=True)
class Together:
    """Types whose keys an object has together."""

    types: tuple[Any, ...]


@dataclass(frozen=True)
class Either:
    """Types of which an object has one."""

    types: tuple[Any, ...]


@dataclass(frozen=True)
class Each:
    """Many of one type: an array, or an object with any keys."""

    type: Any
    is_array: bool = True


def one_of(*types: Any) -> Either:
    """Return a choice."""
    return Either(types)


def both(*types: Any) -> Together:
    """Return a combination."""
    return Together(types)


TEXTS, OBJECTS = list[str], list[dict[str, Any]]
FETCHED = {"mfid": str, "state": str, "files": TEXTS, "absent": dict[str, str]}

# What classes that make their own JSON make.
GIVEN: Mapping[type, Any] = {
    Fault: {"message": str, "file": str | None, "line": int | None, "column": int | None},
    About: dict[str, Any],
    AppliedStatement: both(Statement, {"in_force": bool, "counts": bool, "revoked_by": str | None}),
    StatementOutcome: both(Statement, {"new": bool}),
    Doubt: {"source": str, "hold": str, "said": str},
    Certificate: {
        "statement": str, "dataset": str, "kind": str, "for": dict[str, str], "where": str | None,
        "valid": Each({"from": str, "until": str | None}), "by": str, "when": str, "why": str,
    },
    RunResult: {
        "run_id": str, "pipeline": str, "project": str, "inputs": dict[str, TEXTS],
        "datasets": dict[str, dict[str, str]], "outcomes": dict[str, str], "executed": TEXTS,
        "errors": Each({"message": str, "log": str | None}, is_array=False), "notes": dict[str, str],
        "waiting": list[ResultRow], "not_ingested": TEXTS, "unseen": str | None, "held": dict[str, str],
    },
    Outcome: {
        "name": str, "mfids": TEXTS, "verdict": str, "said": str, "files": OBJECTS, "causes": TEXTS,
        "environment": dict[str, Any], "seconds": float, "compared_with": str,
    },
    Standing: {one.label: (Standing, one.source) for one in columns_at(JSON)},
    DatasetView: both(Standing, {key: (DatasetView, at) for key, at in json_keys(DatasetView).items()}),
    Lineage: {"directed": bool, "multigraph": bool, "nodes": OBJECTS, "edges": OBJECTS},
}  # fmt: skip

# What questions print that answer with `Done`.
DONE: Mapping[str, Any] = {
    "show": {"mfid": str, "log": str | None}, "statements": {"statements": list[AppliedStatement]},
    "lineage": {"output": str, "datasets": int, "hidden": int, "files": int, "bytes": int, "absent": TEXTS,
                "manifest_sha256": str},
    "status": one_of(
        {"runs": list[ListedRun], "pipelines": OBJECTS, "failed_elsewhere": list[FailedRun], "failures": list[Failure],
         "waiting": list[ResultRow], "waiting_of_others": int, "damaged": list[SetAside], "not_ingested": TEXTS,
         "disk": dict[str, int], "holds": Each(both(Statement, {"overdue": bool}))},
        {"metrics": str},
    ),
}  # fmt: skip

# What other commands print.
PRINTED: Mapping[str, Any] = {
    "failed": {"error": {"kind": str, "message": str, "exit_code": int}},
    "run": RunResult, "rerun": one_of(RunResult, PlanAnswer), "check": {"files": list[CheckedFile]},
    "doctor": {"ok": bool,
               "service": Each({"name": str, "passed": bool | None, "seen": str, "needed": str, "else": str}),
               "made": Each({"mfid": str, "name": str, "deletion": str})},
    "get": one_of(FETCHED, {"datasets": Each(FETCHED)}),
    "register": {"mfid": str, "name": str, "files": OBJECTS, "registered": bool, "parents": TEXTS},
    "set": {"changed": bool, "changes": list[FieldChange]}, "delete": RequestedDeletion,
    "hold": StatementOutcome, "sign": both(StatementOutcome, {"lacking": dict[str, int], "whose": dict[str, str]}),
    "certify": both(StatementOutcome, {"certificate": Certificate}),
    "lift": {"lifted": list[Statement], "follows": TEXTS},
    "project trust": one_of(StatementOutcome, {"file": str}),
    "reproduce": one_of({"results": list[Outcome]}, {"code": TEXTS}, {"restored": list[RestoredFile]}),
    "push": {"mfids": TEXTS, "waiting": list[ResultRow], "damaged": list[SetAside]},
    "deploy": one_of({"deployments": list[DeploymentState]}, {"removed": dict[str, bool]}),
    "serve": {"url": str, "pages": str, "data": str}, "init": {"files": TEXTS, "pipeline": str, "project": str},
    "demo": {"datasets": dict[str, str], "executed": TEXTS, "lineage": dict[str, str], "bands": OBJECTS},
    "data clean": one_of({"removed": list[Leftover], "bytes": int, "failed": TEXTS}, {"removed": TEXTS}),
    "data backup": Backup, "data restore": both(Backup, {"set_aside": str | None}),
}  # fmt: skip


class Schema:
    """The schema in the making: `definitions` are those of classes."""

    def __init__(self) -> None:
        self.definitions: dict[str, Any] = {"mfid": MFID}
        for module in iter_modules(ask.__path__, f"{ask.__name__}."):  # they import some types for type checks only
            import_module(module.name)
        ours = [module for name, module in list(sys.modules.items()) if name.startswith("crucible_lineage")]
        self.names = {name: one for module in ours for name, one in vars(module).items() if isinstance(one, type)}

    def of(self, kind: Any, key: str = "") -> Any:
        """Return the schema of a type or a description; `key` is that of the value."""
        if kind is str and key == "mfid":
            return {"$ref": "#/$defs/mfid"}
        if isinstance(kind, Mapping):
            properties = {name: self.of(one, name) for name, one in kind.items()}
            return {"type": "object", "required": list(kind), "properties": properties}
        if isinstance(kind, Together | Either):
            return {"allOf" if isinstance(kind, Together) else "anyOf": [self.of(one) for one in kind.types]}
        if isinstance(kind, Each):
            values = self.of(kind.type)
            return {"type": "array", "items": values} if kind.is_array else _any_keys(values)
        if isinstance(kind, tuple):
            owner, path = kind
            found = self.attribute(owner, path)
            is_optional = found is str and owner is Standing and path not in ("state", "mfid", "summary.name")
            return self.of(found | None if is_optional or path in _optional(owner) else found, key)
        return self._of_type(kind)

    def _of_type(self, kind: Any) -> Any:
        origin, arguments = get_origin(kind), get_args(kind)
        if origin in (Union, UnionType):
            return _either([self.of(one) for one in arguments])
        if origin is Literal:
            return {"enum": list(arguments)}
        if origin is not None:
            is_mapping = issubclass(origin, Mapping)
            values = self.of(arguments[1 if is_mapping else 0])
            return _any_keys(values) if is_mapping else {"type": "array", "items": values}
        if kind in PRIMITIVE:
            return {"type": PRIMITIVE[kind]}
        if kind in GIVEN or is_dataclass(kind) or hasattr(kind, "_fields"):
            return self._defined(kind)
        return {"type": "string"} if kind is Path else {}

    def _defined(self, kind: type) -> Any:
        if kind.__name__ not in self.definitions:
            self.definitions[kind.__name__] = {}  # it may contain itself
            keys = json_keys(kind) if is_dataclass(kind) else dict.fromkeys(kind.__annotations__)
            described = GIVEN.get(kind) or {key: (kind, at or key) for key, at in keys.items()}
            self.definitions[kind.__name__] = {"description": _summary(kind), **self.of(described)}
        return {"$ref": f"#/$defs/{kind.__name__}"}

    def hints(self, of: Any) -> dict[str, Any]:
        """Return the types in an annotated thing."""
        return get_type_hints(of, localns={**self.names, **vars(sys.modules[of.__module__])})

    def attribute(self, kind: Any, path: str) -> Any:
        """Return the type of a field or a property, at any depth."""
        name, _, rest = path.partition(".")
        found = next((vars(one)[name] for one in kind.__mro__ if name in vars(one)), None)
        read = found.fget if isinstance(found, property) else getattr(found, "func", None)
        hints = self.hints(read or kind)
        one = hints["return" if isinstance(found, property | cached_property) else name]
        return self.attribute(one, rest) if rest else one


def _summary(kind: type) -> str:
    return (kind.__doc__ or "").partition("\n")[0]


def _optional(kind: Any) -> set[str]:
    return {one.name for one in fields(kind) if one.default == ""} if is_dataclass(kind) else set()


def _any_keys(values: Any) -> Any:
    return {"type": "object", **({"additionalProperties": values} if values else {})}


def _either(schemas: list[Any]) -> Any:
    types = [one["type"] for one in schemas if one.keys() == {"type"} and isinstance(one["type"], str)]
    return {"type": types} if len(types) == len(schemas) else {"anyOf": schemas}


def schema_text() -> str:
    """Return the schema as JSON."""
    schema, printed = Schema(), dict(PRINTED)
    for asked in questions_at(COMMAND):
        answers = schema.hints(asked.function)["return"]
        types = [DONE[asked.name] if one is Done else one for one in get_args(answers) or (answers,)]
        printed[asked.name] = one_of(*types) if len(types) > 1 else types[0]
    commands = {name: schema.of(printed[name]) for name in sorted(printed)}
    document = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "crucible-lineage: what commands print with --json",
        "$defs": commands | dict(sorted(schema.definitions.items())),
    }
    return json.dumps(document, indent=1) + "\n"


if __name__ == "__main__":
    TARGET.write_text(schema_text(), encoding="utf-8")
