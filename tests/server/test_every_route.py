"""Every route, asked by a colleague, by an outsider and without a key, about what belongs to a private project.

The routes are those of the application: one that is new fails here until it is said who may use it.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from crucible_lineage.server import RunningServer, start_server
from crucible_lineage.server.database import PREFIX
from crucible_lineage.server.running import build_app

SECRET = "unobtainium"  # in every name and text that only the project may see
NOWHERE = "0swqzb3a1sthv000xd8kta0vrw"
EMPTY = hashlib.sha256(b"").hexdigest()
PICTURE = {"thumbnail_name": SECRET, "thumbnail_b64str": base64.b64encode(b"GIF89a").decode()}
NEW_FILE = {"filename": "b.csv", "size": 10, "sha256_hash": "0" * 64}
COMPLETION = {"upload_id": "UPLOAD", "sha256_hash": "0" * 64}

# By route: the status for a contributor to the project, that for an outsider, and the request's query and body.
ROUTES: dict[str, tuple[int, int] | tuple[int, int, dict[str, Any]] | tuple[int, int, dict[str, Any], Any]] = {
    "GET /account": (200, 200),
    "GET /account/apikey": (200, 200),
    "GET /account/profile": (200, 200),
    "GET /account/verify": (200, 200),
    "GET /datasets": (200, 200),
    "POST /datasets": (201, 403, {}, {"project_id": "PROJECT"}),
    "GET /datasets/search": (200, 200, {"q": SECRET}),
    "GET /datasets/{mfid}": (200, 404),
    "PATCH /datasets/{mfid}": (403, 404, {}, {"session_name": "s"}),
    "GET /datasets/{mfid}/children": (200, 404),
    "GET /datasets/{mfid}/parents": (200, 404),
    "POST /datasets/{parent}/children/{child}": (403, 404),
    "DELETE /datasets/{parent}/children/{child}": (403, 404),
    "POST /datasets/{dataset}/samples/{sample}": (403, 404),
    "DELETE /datasets/{dataset}/samples/{sample}": (403, 404),
    "GET /datasets/{mfid}/download_links": (200, 404),
    "GET /datasets/{mfid}/files": (200, 404),
    "POST /datasets/{mfid}/files": (201, 404, {}, {"filename": "c.csv", "storage_backend": "local"}),
    "PUT /datasets/{mfid}/instrument": (403, 404, {}, {"instrument_id": "INSTRUMENT"}),
    "GET /datasets/{mfid}/keywords": (200, 404),
    "POST /datasets/{mfid}/keywords": (201, 404, {"keyword": "new"}),
    "GET /datasets/{mfid}/thumbnails": (200, 404),
    "POST /datasets/{mfid}/thumbnails": (201, 404, {}, PICTURE),
    "DELETE /datasets/{mfid}/thumbnails/{number}": (403, 404),
    "POST /datasets/{mfid}/upload/complete": (404, 404, {}, COMPLETION),
    "POST /datasets/{mfid}/upload/initiate": (201, 404, {}, NEW_FILE),
    "POST /datasets/{mfid}/upload/multipart/complete": (409, 404, {}, COMPLETION),
    "POST /datasets/{mfid}/upload/multipart/initiate": (201, 404, {}, NEW_FILE),
    "GET /datasets/{mfid}/upload/multipart/{upload_id}": (200, 404),
    "DELETE /datasets/{mfid}/upload/multipart/{upload_id}": (204, 404),
    "POST /datasets/{mfid}/upload/multipart/{upload_id}/parts": (
        200, 404, {}, {"parts": [{"part_number": 1, "crc32c": "AAAAAA=="}]}
    ),
    "GET /deletion_audit": (200, 200),
    "GET /deletion_requests": (200, 200),
    "GET /deletion_requests/{number}": (404, 404),
    "GET /entity_graph_cte/{mfid}": (200, 404),
    "GET /files": (200, 200),
    "GET /files/{mfid}": (200, 404),
    "DELETE /files/{mfid}": (403, 404),
    "GET /files/{mfid}/download_link": (200, 404),
    "POST /files/{mfid}/ingest": (201, 404, {"status": "not_requested"}),
    "POST /files/{mfid}/upload/multipart/initiate": (403, 404, {}, {"size": 10, "sha256_hash": "0" * 64}),
    "GET /ingestion_requests": (200, 200),
    "GET /ingestion_requests/{number}": (200, 404),
    "GET /ingestors": (200, 200),
    "GET /instruments": (200, 200),
    "POST /instruments": (409, 409, {}, {"instrument_id": "INSTRUMENT", "instrument_name": "mine", "location": "B67"}),
    "GET /instruments/search": (200, 200, {"q": "Raman"}),
    "GET /instruments/{reference}": (200, 200),
    "GET /projects": (200, 200),
    "POST /projects": (403, 403, {}, {"project_id": "mine", "project_lead": "local"}),
    "GET /projects/search": (200, 200, {"q": "PROJECT"}),
    "GET /projects/{reference}": (200, 200),
    "GET /projects/{reference}/users": (200, 403),
    "POST /projects/{reference}/users/{user}": (403, 403),
    "DELETE /projects/{reference}/users/{user}": (403, 403),
    "GET /resources/metadata/search": (200, 200, {"q": SECRET}),
    "GET /resources/{mfid}": (200, 404),
    "DELETE /resources/{mfid}": (403, 404),
    "PUT /resources/{mfid}/access/public": (403, 404),
    "DELETE /resources/{mfid}/access/public": (403, 404),
    "POST /resources/{mfid}/delete": (403, 404),
    "GET /resources/{mfid}/links": (200, 404),
    "GET /resources/{mfid}/metadata": (200, 404),
    "PATCH /resources/{mfid}/metadata": (200, 404, {}, {"a": 1}),
    "POST /resources/{mfid}/metadata": (409, 404, {}, {"a": 1}),
    "POST /resources/{mfid}/project": (403, 404, {}, {"project_id": "PROJECT"}),
    "GET /samples": (200, 200),
    "POST /samples": (201, 403, {}, {"project_id": "PROJECT"}),
    "GET /samples/search": (200, 200, {"q": SECRET}),
    "GET /samples/{mfid}": (200, 404),
    "PATCH /samples/{mfid}": (403, 404, {}, {"sample_type": "x"}),
    "GET /samples/{mfid}/children": (200, 404),
    "GET /samples/{mfid}/parents": (200, 404),
    "POST /samples/{parent}/children/{child}": (403, 404),
    "DELETE /samples/{parent}/children/{child}": (403, 404),
    "POST /service_accounts": (403, 403, {}, {"username": "another"}),
    "POST /service_accounts/{reference}/rotate_key": (403, 403),
    "GET /users/search": (200, 200, {"q": "local"}),
    "POST /users/resolve": (200, 200, {}, {"usernames": ["local"]}),
    "GET /users/{reference}": (200, 200),
}  # fmt: skip
WITHOUT_KEY = {
    "GET /health/live": 200,
    "GET /health/ready": 200,
    "GET /storage/contents/{sha256}/{filename}": 403,
    "PUT /storage/parts/{upload_id}/{number}": 403,
    "PUT /storage/resumable/{upload_id}": 403,
}
SIGNED = {"expires": "99999999999", "signature": "0" * 64, "crc32c": "AAAAAA==", "size": "10"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with start_server(tmp_path_factory.mktemp("crucible")) as running:
        yield running


class Lab:
    """A private project with one of everything, its contributor and an outsider."""

    def __init__(self, http: httpx.Client) -> None:
        self.http = http
        self.serial = 0
        self.post("/instruments", {"instrument_id": "INSTRUMENT", "instrument_name": "Raman", "location": "B67"})
        self.post("/projects", {"project_id": "PROJECT", "organization": "MF", "project_lead": "local"})
        self.keys = {
            name: self.post("/service_accounts", {"username": name})["api_key"] for name in ("colleague", "outsider")
        }
        self.post("/projects/PROJECT/users/colleague", role="contributor")

    def post(self, path: str, body: Any = None, **params: Any) -> Any:
        return self.http.post(path, json=body, params=params).raise_for_status().json()

    def furnish(self) -> dict[str, Any]:
        """Create one of everything in the project; return identifiers for path parameters, by group of routes."""
        name = {"project_id": "PROJECT"}
        one, other = (
            self.post("/datasets", name | {"dataset_name": SECRET, "measurement": SECRET})["unique_id"] for _ in "ab"
        )
        sample, part = (
            self.post("/samples", name | {"sample_name": SECRET, "sample_type": SECRET})["unique_id"] for _ in "ab"
        )
        self.post(f"/datasets/{one}/children/{other}")
        self.post(f"/samples/{sample}/children/{part}")
        self.post(f"/datasets/{one}/samples/{sample}")
        self.post(f"/datasets/{one}/keywords", keyword=SECRET)
        self.http.patch(f"/resources/{one}/metadata", json={"alloy": SECRET}).raise_for_status()
        empty = {"filename": f"{SECRET}.csv", "size": 0, "sha256_hash": EMPTY}
        file = self.post(f"/datasets/{one}/upload/multipart/initiate", empty)["existing_file"]["mfid"]
        doomed = self.post("/datasets", name | {"dataset_name": SECRET})["unique_id"]
        upload = self.post(f"/datasets/{one}/upload/multipart/initiate", NEW_FILE | {"filename": "u"})
        return {
            "datasets": one, "child of datasets": other, "samples": sample, "child of samples": part, "files": file,
            "thumbnails": self.post(f"/datasets/{one}/thumbnails", PICTURE)["id"],
            "upload_id": upload["upload_id"],
            "ingestion_requests": self.post(f"/files/{file}/ingest", status="not_requested")["id"],
            "deletion_requests": self.post(f"/resources/{doomed}/delete", reason=SECRET)["id"],
        }  # fmt: skip

    def ask(self, who: str, route: str, mfids: dict[str, Any]) -> httpx.Response:
        """Send the route's request as that user; parameters of the path are filled with existing identifiers."""
        method, path = route.split()
        _, _, query, body = (*ROUTES[route], *({}, None)[len(ROUTES[route]) - 2 :])
        address = re.sub(r"{(\w+)}", lambda found: str(path_value(path, found[1], mfids)), path)
        body = {**body, "upload_id": mfids["upload_id"]} if body is COMPLETION else body
        headers = {"Authorization": f"Bearer {self.keys[who]}"}
        return self.http.request(method, address, params=query, json=body, headers=headers)


def path_value(path: str, name: str, mfids: dict[str, Any]) -> Any:
    group = path.split("/")[1]
    match name:
        case "mfid" if group in mfids:
            return mfids[group]
        case "number":
            return mfids["thumbnails" if "thumbnails" in path else group]
        case "mfid" | "dataset":
            return mfids["datasets"]
        case "parent":
            return mfids[group]
        case "child":
            return mfids[f"child of {group}"]
        case "sample":
            return mfids["samples"]
        case "upload_id":
            return mfids["upload_id"]
        case "reference":
            return {"projects": "PROJECT", "instruments": "INSTRUMENT", "users": "local"}.get(group, "outsider")
        case "user":
            return "outsider"
    raise AssertionError(f"{name} in {path} is a new kind of path parameter; add its value here")


@pytest.fixture(scope="module")
def lab(server: RunningServer) -> Iterator[Lab]:
    headers = {"Authorization": f"Bearer {server.api_key}"}
    with httpx.Client(base_url=server.url, headers=headers) as http:
        yield Lab(http)


@pytest.fixture(scope="module")
def mfids(lab: Lab) -> dict[str, Any]:
    return lab.furnish()


def test_every_route_is_in_the_table() -> None:
    paths = build_app(None).openapi()["paths"]  # type: ignore[arg-type]
    routes = {f"{method.upper()} {path.removeprefix(PREFIX)}" for path, methods in paths.items() for method in methods}
    assert routes == ROUTES.keys() | WITHOUT_KEY.keys()


@pytest.mark.parametrize("route", ROUTES)
def test_an_outsider_gets_the_expected_status_and_learns_nothing(lab: Lab, mfids: dict[str, Any], route: str) -> None:
    answer = lab.ask("outsider", route, mfids)
    assert answer.status_code == ROUTES[route][1], answer.text
    assert SECRET not in answer.text
    assert not any(str(value) in answer.text for name, value in mfids.items() if isinstance(value, str))
    assert "Crucible-Revision" not in answer.headers


@pytest.mark.parametrize("route", [route for route in ROUTES if "{" in route and ROUTES[route][1] == 404])
def test_an_outsider_cannot_distinguish_hidden_from_missing(lab: Lab, mfids: dict[str, Any], route: str) -> None:
    missing = {name: NOWHERE if isinstance(value, str) else 999_999 for name, value in mfids.items()}
    hidden, absent = lab.ask("outsider", route, mfids), lab.ask("outsider", route, missing)
    assert (hidden.status_code, hidden.text) == (absent.status_code, absent.text)


@pytest.mark.parametrize("route", ROUTES)
def test_a_contributor_gets_the_expected_status(lab: Lab, route: str) -> None:
    answer = lab.ask("colleague", route, lab.furnish())
    assert answer.status_code == ROUTES[route][0], answer.text


def test_nobody_gets_anywhere_without_a_key_or_with_a_wrong_one(server: RunningServer, mfids: dict[str, Any]) -> None:
    with httpx.Client(base_url=server.url) as http:
        for route in ROUTES:
            method, path = route.split()
            address = re.sub(r"{(\w+)}", lambda found, path=path: str(path_value(path, found[1], mfids)), path)
            for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic d3Jvbmc="}):
                assert http.request(method, address, headers=headers).status_code == 401, route
        for route, status in WITHOUT_KEY.items():
            method, path = route.split()
            wanted = {"contents": ("expires", "signature"), "resumable": ("expires", "signature", "size")}
            names = wanted.get(path.split("/")[2], SIGNED) if "storage" in path else ()
            query = {name: SIGNED[name] for name in names}
            address = path.format(sha256=EMPTY, filename="a.csv", upload_id=mfids["upload_id"], number=1)
            assert http.request(method, address, params=query).status_code == status, route
