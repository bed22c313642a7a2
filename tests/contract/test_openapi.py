"""The server keeps to the OpenAPI document it publishes, whatever is sent, and never answers 500.

Two requests of each kind to each route; twenty with CRUCIBLE_NIGHTLY=1.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from crucible_lineage.server import RunningServer, start_server
from crucible_lineage.server.openapi import ANSWERS
from tests.nights import NIGHTLY

CHECKS = [not_a_server_error, content_type_conformance, response_schema_conformance, status_code_conformance]
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


@pytest.fixture(scope="module")
def document(http: httpx.Client) -> Any:
    return http.get("/openapi.json").raise_for_status().json()


def test_every_answer_that_is_described_belongs_to_a_route(document: Any) -> None:
    routes = {
        f"{method.upper()} {path.removeprefix('/api/v3')}"
        for path, operations in document["paths"].items()
        for method in operations
    }
    assert set(ANSWERS) <= routes


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_no_request_breaks_the_server_or_its_description(
    document: Any,
    server: RunningServer,
    http: httpx.Client,
    subtests: pytest.Subtests,
    mode: GenerationMode,
) -> None:
    schema = schemathesis.openapi.from_dict(document)
    schema.config.update(base_url=server.url.removesuffix("/api/v3"))
    new = furnisher(http)
    identifiers = new()
    for result in schema.get_all_operations():
        operation = result.ok()
        if "/health/" in operation.path and mode is GenerationMode.NEGATIVE:
            continue  # they have no parameters that could be wrong
        with subtests.test(operation.label):
            try_out(operation.as_strategy(generation_mode=mode), EXAMPLES, identifiers, dict(http.headers))
        if operation.method.upper() == "DELETE":
            identifiers = new()


def test_what_takes_null_is_described_with_null(document: Any, http: httpx.Client) -> None:
    there = furnisher(http)()
    schemas, checked = document["components"]["schemas"], 0

    def described(schema: Any) -> Any:
        return schemas[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema

    for path, operations in document["paths"].items():
        if "requestBody" not in operations.get("patch", {}) or not re.fullmatch(r"/api/v3/\w+/{\w+}", path):
            continue
        name = path.rpartition("{")[2].rstrip("}")
        url = path.removeprefix("/api/v3").replace(f"{{{name}}}", str(identifier(path, name, there)))
        body = described(operations["patch"]["requestBody"]["content"]["application/json"]["schema"])
        answer = described(operations["patch"]["responses"]["200"]["content"]["application/json"]["schema"])
        for field in body["properties"]:
            changed = http.patch(url, json={field: None})
            if changed.is_success and field in answer["properties"] and changed.json()[field] is None:
                assert {"type": "null"} in answer["properties"][field].get("anyOf", []), f"{path}: {field}"
                checked += 1
    assert checked > 5


def try_out(cases: st.SearchStrategy[Any], examples: int, there: dict[str, Any], headers: dict[str, str]) -> None:
    """Send some of the cases, about half of them with existing identifiers, and check each answer."""

    @settings(BOUNDED, max_examples=examples)
    @given(cases, st.data())
    def send(case: Any, data: Any) -> None:
        for name in case.path_parameters or {}:
            if (known := identifier(case.path, name, there)) is not None and data.draw(st.booleans()):
                case.path_parameters[name] = known
        response = case.call(headers=headers)
        case.validate_response(response, checks=CHECKS, headers=headers)

    send()


def furnisher(http: httpx.Client) -> Callable[[], dict[str, Any]]:
    """Return a function that creates one of everything and returns the identifiers, so that routes find them."""
    serial = iter(range(1_000_000))
    tag = hashlib.sha256(str(http.get("/users").json()["total"]).encode()).hexdigest()[:6]

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
        case "reference" | "user" | "project" | "group" | "principal":
            return identifiers["slug"]
    return None
