"""The server never answers 500, whatever is sent to its routes, described by their types.

Two requests of each kind to each route; twenty with CRUCIBLE_NIGHTLY=1.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error

from crucible_lineage.server import RunningServer, start_server
from crucible_lineage.server.running import ROUTES
from tests.nights import NIGHTLY

CONTENT = b"620.9,120\n"
EXAMPLES = 20 if NIGHTLY else 2
BOUNDED = settings(
    derandomize=True,  # the same examples each time
    database=None,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with start_server(tmp_path_factory.mktemp("described")) as running:
        yield running


@pytest.fixture(scope="module")
def http(server: RunningServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {server.api_key}"}) as session:
        yield session


def described() -> dict[str, Any]:
    """Return the table of routes as an OpenAPI document."""
    shared: dict[str, Any] = {}
    paths: dict[str, Any] = {}

    def schema(kind: Any) -> dict[str, Any]:
        made: dict[str, Any] = kind.json_schema(ref_template="#/components/schemas/{model}")
        shared.update(made.pop("$defs", {}))
        return made

    for route in ROUTES:
        parts = {where: schema(kind) for where, kind in route.types.items()}
        parameters = [
            {"name": name, "in": where, "required": name in parts[where].get("required", ()), "schema": one}
            for where in ("path", "query")
            for name, one in parts[where].get("properties", {}).items()
        ]
        operation: dict[str, Any] = {"parameters": parameters, "responses": {"default": {"description": "any"}}}
        if "body" in parts:
            operation["requestBody"] = {"content": {"application/json": {"schema": parts["body"]}}}
        paths.setdefault(f"/api/v3{route.path}", {})[route.method.lower()] = operation
    info = {"title": "Crucible, embedded", "version": "3"}
    return {"openapi": "3.1.0", "info": info, "paths": paths, "components": {"schemas": shared}}


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_no_request_breaks_the_server(
    server: RunningServer, http: httpx.Client, subtests: pytest.Subtests, mode: GenerationMode
) -> None:
    schema = schemathesis.openapi.from_dict(described())
    schema.config.update(base_url=server.url.removesuffix("/api/v3"))
    new = furnisher(http)
    identifiers = new()
    for result in schema.get_all_operations():
        operation = result.ok()
        with subtests.test(operation.label):
            with suppress(Unsatisfiable):  # it has no parameters that could be wrong
                try_out(operation.as_strategy(generation_mode=mode), EXAMPLES, identifiers, dict(http.headers))
        if operation.method.upper() == "DELETE":
            identifiers = new()


def try_out(cases: st.SearchStrategy[Any], examples: int, there: dict[str, Any], headers: dict[str, str]) -> None:
    """Send some of the cases, about half of them with existing identifiers, and check each answer."""

    @settings(BOUNDED, max_examples=examples)
    @given(cases, st.data())
    def send(case: Any, data: Any) -> None:
        for name in case.path_parameters or {}:
            if (known := identifier(case.path, name, there)) is not None and data.draw(st.booleans()):
                case.path_parameters[name] = known
        response = case.call(headers=headers)
        case.validate_response(response, checks=[not_a_server_error], headers=headers)

    send()


def furnisher(http: httpx.Client) -> Callable[[], dict[str, Any]]:
    """Return a function that creates one of everything and returns the identifiers, so that routes find them."""
    serial = iter(range(1_000_000))
    tag = secrets.token_hex(3)

    def post(path: str, body: Any = None, **params: Any) -> Any:
        return http.post(path, json=body, params=params).raise_for_status().json()

    def new() -> dict[str, Any]:
        name = f"t{tag}-{next(serial)}"
        post("/service_accounts", {"username": name})
        post("/projects", {"project_id": name, "organization": "MF", "project_lead": name})
        post("/instruments", {"instrument_id": name, "instrument_name": name, "location": "B67"})
        dataset, other = (post("/datasets", {"project_id": name, "dataset_name": "raw"})["unique_id"] for _ in "ab")
        sample = post("/samples", {"project_id": name})["unique_id"]
        post(f"/datasets/{dataset}/children/{other}")
        http.patch(f"/resources/{dataset}/metadata", json={"laser": {"nm": 632.8}}).raise_for_status()
        picture = {"thumbnail_name": "p", "thumbnail_b64str": base64.b64encode(b"GIF89a").decode()}
        thumbnail = post(f"/datasets/{dataset}/thumbnails", picture)["id"]
        body = {"filename": "a.csv", "size": 10, "sha256_hash": hashlib.sha256(CONTENT).hexdigest()}
        upload = post(f"/datasets/{dataset}/upload/multipart/initiate", body)
        empty = {"filename": "b.csv", "size": 0, "sha256_hash": hashlib.sha256(b"").hexdigest()}
        file = post(f"/datasets/{dataset}/upload/multipart/initiate", empty)["existing_file"]["mfid"]
        return {
            "datasets": dataset, "child": other, "samples": sample, "files": file, "slug": name,
            "thumbnails": thumbnail, "upload_id": upload["upload_id"],
            "ingestion_requests": post(f"/files/{file}/ingest", status="not_requested")["id"],
            "deletion_requests": post(f"/resources/{other}/delete")["id"],
        }  # fmt: skip

    return new


def identifier(path: str, name: str, identifiers: dict[str, Any]) -> Any:
    """Return the identifier for the parameter `name` of a path; None if none fits."""
    group = path.removeprefix("/api/v3/").split("/")[0]
    match name:
        case "mfid":
            return identifiers.get(group, identifiers["datasets"])
        case "dataset" | "parent":
            return identifiers["datasets"] if group == "datasets" else identifiers["samples"]
        case "sample":
            return identifiers["samples"]
        case "child" | "upload_id":
            return identifiers[name]
        case "number":
            return identifiers["thumbnails"] if "thumbnails" in path else identifiers.get(group)
        case "reference" | "user" | "project":
            return identifiers["slug"]
    return None
