"""The HTTP conventions of all routes: their table, checked parameters and bodies, refusals, envelopes."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from inspect import Parameter, signature
from typing import Annotated, Any, TypeVar, get_origin, get_type_hints

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    create_model,
)
from starlette.datastructures import QueryParams

from crucible_lineage.server.database import JsonObject, stored_time

Json = Any
Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])
MAX_ROW_ID = (1 << 63) - 1
GIVEN = ("call", "db", "row", "body", "query")  # parameters of endpoints that are not single values of a path or query


class Refusal(Exception):  # noqa: N818 - an answer, not a fault
    """The answer `{"detail": ...}` with this status."""

    def __init__(self, status: int, detail: Any) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail


def invalid(location: str, name: str, message: str) -> Refusal:
    """Return the refusal of one wrong value, in the same form as `checked` gives."""
    return Refusal(422, [{"type": "value_error", "loc": (location, name), "msg": message}])


def checked(location: str, kind: TypeAdapter[Any], value: Any) -> Any:
    """Return the value as this type, a body from its JSON; else refuse it with 422 and a list of what is wrong."""
    try:
        return kind.validate_json(value) if location == "body" else kind.validate_python(value)
    except ValidationError as error:
        if "recursion limit" in str(error):
            raise Refusal(422, "The JSON body is nested too deeply to be read") from None
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        raise Refusal(422, [{**fault, "loc": (location, *fault["loc"])} for fault in faults]) from None


@dataclass(eq=False)
class Route:
    """A row of the table of routes. Its endpoint takes, by name, what its path, query and body hold, the call, `db`: a
    transaction, and `row`: the resource of one of these kinds (`of`) in the path, on which the caller has the role.

    `is_open` routes take no key. `is_short` are those of a few queries, which run in the event loop: a switch to a
    thread would take as long.
    """

    method: str
    path: str
    endpoint: Callable[..., Any]
    status: int = 200
    is_short: bool = False
    is_open: bool = False
    of: str | tuple[str, ...] | None = None
    role: int = 1  # VIEWER

    @cached_property
    def given(self) -> set[str]:
        return {name for name in GIVEN if name in signature(self.endpoint).parameters}

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        return re.compile(re.sub(r"{(\w+)}", r"(?P<\1>[^/]+)", self.path))

    @cached_property
    def types(self) -> dict[str, TypeAdapter[Any]]:
        """The types of path, query and body; made at the first request, since a start uses few of them."""
        hints = get_type_hints(self.endpoint, include_extras=True)
        fields: dict[str, dict[str, Any]] = {"path": {"mfid": (str, ...)} if "row" in self.given else {}, "query": {}}
        for name, parameter in signature(self.endpoint).parameters.items():
            if name not in GIVEN:
                default = ... if parameter.default is Parameter.empty else parameter.default
                fields["path" if f"{{{name}}}" in self.path else "query"][name] = (hints[name], default)
        query = create_model("query", __base__=hints.get("query", Form), **fields["query"])
        self.lists = {name for name, field in query.model_fields.items() if get_origin(field.annotation) is list}
        self.singly = set(fields["query"])
        path = create_model("path", __base__=Form, **fields["path"])
        types = {"path": path, "query": query, **({"body": hints["body"]} if "body" in hints else {})}
        return {where: TypeAdapter(model) for where, model in types.items()}

    def arguments(self, path: dict[str, str], query: QueryParams) -> JsonObject:
        """Return the checked arguments of the endpoint, without call and body; an unknown parameter is refused."""
        types = self.types
        given = {name: query.getlist(name) if name in self.lists else query[name] for name in query}
        asked = checked("query", types["query"], given)
        values = {name: getattr(asked, name) for name in self.singly}
        return {
            **dict(checked("path", types["path"], path)),
            **values,
            **({"query": asked} if "query" in self.given else {}),
        }


ROUTES: list[Route] = []


def route(method: str, path: str, status: int = 200, **options: Any) -> Callable[[Endpoint], Endpoint]:
    """Add the function to the table of routes."""

    def declare(endpoint: Endpoint) -> Endpoint:
        ROUTES.append(Route(method, path, endpoint, status, **options))
        return endpoint

    return declare


get, post, put, patch, delete = (partial(route, method) for method in ("GET", "POST", "PUT", "PATCH", "DELETE"))


def _moment(text: str) -> str:
    stored_time(text)
    return text


def _plain_name(name: str) -> str:
    if name in (".", "..") or any(character in "/\\" or ord(character) < 32 for character in name):
        raise ValueError("must be a plain file name, without folders or control characters")
    if len(name.encode("utf-8", "replace")) > 255:
        raise ValueError("must not be longer than 255 bytes")
    return name


class Form(BaseModel):
    """Base of strict JSON bodies, which refuse unknown fields; those that clients build from models ignore them."""

    model_config = ConfigDict(extra="forbid", defer_build=True)


Text = Annotated[str, Field(max_length=10_000)]
FileName = Annotated[str, Field(min_length=1), AfterValidator(_plain_name)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, Field(min_length=1, max_length=500)]
Moment = Annotated[str, Field(max_length=64), AfterValidator(_moment)]
Number = Annotated[int, AfterValidator(lambda number: number if 0 < number <= MAX_ROW_ID else 0)]  # of a row, from 1
Count = Annotated[int, Field(ge=0, le=MAX_ROW_ID)]
Limit = Annotated[int, Field(ge=0, le=1000)]
Offset = Annotated[int, Field(ge=0, le=MAX_ROW_ID)]


class Page(Form):
    """A page of a list by offset."""

    limit: Limit = 100
    offset: Offset = 0
