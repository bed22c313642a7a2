"""Every route of the server, tried by every kind of caller with a request that is valid: the table is `rights.txt`.

Its rows are the routes of the application: a new route fails here until `REQUESTS` has a request for it and the table,
written again with UPDATE_RIGHTS=1, says who gets what. The administrator gets through everywhere, which shows that the
requests are valid; what is refused changes no row of the database.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import google_crc32c
import httpx
import pytest

from crucible_lineage.server.running import ROUTES
from crucible_lineage.server.schema import SEALED
from tests.nights import share
from tests.serving import RunningServer, start_server

TABLE = Path(__file__).with_name("rights.txt")
CALLERS = ("no key", "old key", "other project", "member", "owner", "admin")
SECRET = "unobtainium"  # in every name and text that only the project may see
NOWHERE = "0swqzb3a1sthv000xd8kta0vrw"
CONTENT = b"0123456789"
DIGEST = {"size": len(CONTENT), "sha256_hash": hashlib.sha256(CONTENT).hexdigest()}
CRC = base64.b64encode(google_crc32c.value(CONTENT).to_bytes(4, "big")).decode()
PICTURE = {"thumbnail_name": SECRET, "thumbnail_b64str": base64.b64encode(b"GIF89a").decode()}
WRITTEN = (*SEALED, "api_key", "upload", "ingestion_request", "request", "deletion")

# Query and body of the routes that need one. NEW is a name that nothing has yet; `items` has other words in capitals.
REQUESTS: dict[str, tuple[dict[str, Any], Any]] = {
    "POST /datasets": ({}, {"project_id": "PROJECT"}),
    "GET /datasets/search": ({"q": SECRET}, None),
    "PATCH /datasets/{mfid}": ({}, {"session_name": "s"}),
    "PUT /datasets/{mfid}/instrument": ({}, {"instrument_id": "INSTRUMENT"}),
    "POST /datasets/{mfid}/keywords": ({"keyword": "new"}, None),
    "POST /datasets/{mfid}/thumbnails": ({}, PICTURE),
    "POST /datasets/{mfid}/upload/complete": ({}, {"upload_id": "GROWN", "sha256_hash": DIGEST["sha256_hash"]}),
    "POST /datasets/{mfid}/upload/initiate": ({}, DIGEST | {"filename": "b.csv"}),
    "POST /datasets/{mfid}/upload/multipart/complete": (
        {}, {"upload_id": "SENT", "sha256_hash": DIGEST["sha256_hash"]}
    ),
    "POST /datasets/{mfid}/upload/multipart/initiate": ({}, DIGEST | {"filename": "b.csv"}),
    "POST /datasets/{mfid}/upload/multipart/{upload_id}/parts": ({}, {"parts": [{"part_number": 1, "crc32c": CRC}]}),
    "POST /files/{mfid}/ingest": ({"status": "not_requested"}, None),
    "POST /files/{mfid}/upload/multipart/initiate": ({}, DIGEST),
    "POST /instruments": ({}, {"instrument_id": "NEW", "instrument_name": "mine", "location": "B67"}),
    "GET /instruments/search": ({"q": "Raman"}, None),
    "POST /projects": ({}, {"project_id": "NEW", "project_lead": "local"}),
    "GET /projects/search": ({"q": "PROJECT"}, None),
    "GET /resources/metadata/search": ({"q": SECRET}, None),
    "PATCH /resources/{mfid}/metadata": ({}, {"a": 1}),
    "POST /resources/{mfid}/metadata": ({"overwrite": True}, {"a": 1}),
    "POST /resources/{mfid}/project": ({"confirm": True}, {"project_id": "PROJECT"}),
    "POST /samples": ({}, {"project_id": "PROJECT"}),
    "GET /samples/search": ({"q": SECRET}, None),
    "PATCH /requests/{number}": ({}, {"status": "failed"}),
    "PATCH /samples/{mfid}": ({}, {"sample_type": "x"}),
    "POST /service_accounts": ({}, {"username": "NEW"}),
    "GET /users/search": ({"q": "local"}, None),
    "POST /users/resolve": ({}, {"usernames": ["local"]}),
}  # fmt: skip
TEXTS = ("", " ", "\0", "ü" * 300, "x" * 20_000, "-1", str(2**70), "true", "9999-12-31", NOWHERE)
OBJECTS = (None, -1, 2**70, 1.5, True, [], {}, [None], {"a": [{}]})
SIGNED = {"expires": "99999999999", "signature": "0" * 64, "crc32c": CRC, "size": "10"}
FOR_ALL = {  # what every account may ask, and gets an answer about public things, or its own
    *("GET /account", "GET /account/apikey", "GET /account/profile", "GET /account/verify", "GET /datasets"),
    *("GET /datasets/search", "GET /deletion_audit", "GET /deletion_requests", "GET /files", "GET /ingestion_requests"),
    *("GET /ingestors", "GET /instruments", "GET /instruments/search", "GET /instruments/{mfid}"),
    *(
        "GET /projects",
        "GET /projects/search",
        "GET /projects/{mfid}",
        "GET /requests",
        "GET /resources/metadata/search",
    ),
    *("GET /samples", "GET /samples/search", "GET /users/search", "GET /users/{reference}", "POST /instruments"),
    *("GET /resources/metadata/search", "POST /users/resolve"),
}


def routes() -> list[str]:
    """Return the routes of the application."""
    served = {f"{route.method} {route.path}" for route in ROUTES}
    return sorted(served, key=lambda route: (route.split()[1], route))


class Lab:
    """A private project of `owner`, its contributors `member` and `former`, and a `stranger` with another project."""

    def __init__(self, server: RunningServer, folder: Path) -> None:
        self.http = httpx.Client(base_url=server.url)
        self.database = folder / "crucible.db"
        self.serial = 0
        self.keys = {"admin": server.api_key, "no key": ""}
        names = {"owner": "owner", "member": "member", "old key": "former", "other project": "stranger"}
        for caller, name in names.items():
            self.keys[caller] = self.post("admin", "/service_accounts", {"username": name})["api_key"]
        for project, lead in (("PROJECT", "owner"), ("OTHER", "stranger")):
            self.post("admin", "/projects", {"project_id": project, "organization": "MF", "project_lead": lead})
        instrument = {"instrument_id": "INSTRUMENT", "instrument_name": "Raman", "location": "B67"}
        self.post("admin", "/instruments", instrument)
        for name in ("member", "former"):
            self.post("owner", f"/projects/PROJECT/users/{name}", role="contributor")
        self.post("admin", "/service_accounts/former/rotate_key")

    def post(self, caller: str, path: str, body: Any = None, **params: Any) -> Any:
        answer = self.http.post(path, json=body, params=params, headers=self.header(caller))
        return answer.raise_for_status().json()

    def header(self, caller: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.keys[caller]}"} if self.keys[caller] else {}

    def furnish(self) -> dict[str, Any]:
        """Create one of everything in the project; return what stands for path parameters and words in capitals."""
        self.serial += 1
        name, who = {"project_id": "PROJECT"}, "owner"
        secret = name | {"dataset_name": SECRET, "measurement": SECRET, "scientific_metadata": {"alloy": SECRET}}
        one, other, doomed = (self.post(who, "/datasets", secret)["unique_id"] for _ in "abc")
        sample, part = (self.post(who, "/samples", name | {"sample_name": SECRET})["unique_id"] for _ in "ab")
        self.post(who, f"/datasets/{one}/children/{other}")
        self.post(who, f"/samples/{sample}/children/{part}")
        self.post(who, f"/datasets/{one}/samples/{sample}")
        self.post(who, f"/datasets/{one}/keywords", keyword=SECRET)
        uploads = f"/datasets/{one}/upload"
        sent = self.post(who, f"{uploads}/multipart/initiate", DIGEST | {"filename": f"{SECRET}.txt"})["upload_id"]
        link = self.post(who, f"{uploads}/multipart/{sent}/parts", {"parts": [{"part_number": 1, "crc32c": CRC}]})
        self.http.put(link["parts"][0]["url"], content=CONTENT).raise_for_status()
        grown = self.post(who, f"{uploads}/initiate", DIGEST | {"filename": "grown.txt"})
        self.http.put(grown["resumable_uri"], content=CONTENT).raise_for_status()
        empty = {"filename": f"{SECRET}.csv", "size": 0, "sha256_hash": hashlib.sha256(b"").hexdigest()}
        file = self.post(who, f"{uploads}/initiate", empty)["existing_file"]["mfid"]
        guest, leaver = f"guest{self.serial}", f"leaver{self.serial}"
        for account in (guest, leaver):
            self.post("admin", "/service_accounts", {"username": account})
        self.post(who, f"/projects/PROJECT/users/{leaver}")
        return {
            "datasets": one, "child of datasets": other, "samples": sample, "child of samples": part, "files": file,
            "thumbnails": self.post(who, f"/datasets/{one}/thumbnails", PICTURE)["id"],
            "upload_id": self.post(who, f"{uploads}/multipart/initiate", DIGEST | {"filename": "u"})["upload_id"],
            "ingestion_requests": self.post(who, f"/files/{file}/ingest", status="not_requested")["id"],
            "requests": self.post(who, f"/datasets/{one}/rga_analysis")["id"],
            "deletion_requests": self.post(who, f"/resources/{doomed}/delete", reason=SECRET)["id"],
            "projects": "PROJECT", "instruments": "INSTRUMENT",
            "guest": guest, "leaver": leaver, "NEW": f"new{self.serial}", "SENT": sent, "GROWN": grown["upload_id"],
        }  # fmt: skip

    def ask(self, caller: str, route: str, items: dict[str, Any]) -> httpx.Response:
        """Send the route's request as that caller; headers of every row are those that some route needs."""
        method, path = route.split()
        query, body = REQUESTS.get(route, ({}, None))
        if "/storage/" in path:
            names = {"contents": ("expires", "signature"), "resumable": ("expires", "signature", "size")}
            query = {name: SIGNED[name] for name in names.get(path.split("/")[2], tuple(SIGNED))}
        address = re.sub(r"{(\w+)}", lambda found: str(path_value(route, found[1], items)), path)
        body = {name: items.get(str(value), value) for name, value in body.items()} if body else None
        headers = {**self.header(caller), "If-Match": "*"}
        return self.http.request(method, address, params=query, json=body, headers=headers)

    def rows(self) -> str:
        """Return a digest of all rows that requests can write."""
        with closing(sqlite3.connect(f"{self.database.as_uri()}?mode=ro", uri=True)) as db:
            rows = [db.execute(f"SELECT * FROM {table}").fetchall() for table in WRITTEN]
        return hashlib.sha256(repr(rows).encode()).hexdigest()


def path_value(route: str, name: str, items: dict[str, Any]) -> Any:
    path = route.split()[1]
    group = path.split("/")[1]
    match name:
        case "mfid" if group in items:
            return items[group]
        case "number" if group == "storage":
            return 1
        case "number":
            return items["thumbnails" if "thumbnails" in path else group]
        case "parent" if path.startswith("/datasets/{child}"):
            return items["samples"]
        case "mfid" | "child" if "/children/" not in path:
            return items["datasets"]
        case "parent":
            return items[group]
        case "child":
            return items[f"child of {group}"]
        case "upload_id":
            return items["upload_id"]
        case "kind":
            return "mosaic_stitch"
        case "reference":
            return "local" if group == "users" else items["guest"]
        case "user":
            return items["leaver" if route.startswith("DELETE") else "guest"]
        case "sha256":
            return DIGEST["sha256_hash"]
        case "filename":
            return "a.csv"
    raise AssertionError(f"{name} in {path} is a new kind of path parameter; add its value here")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("crucible")
    with start_server(folder) as server:
        made = Lab(server, folder)
        yield made
        made.http.close()


@pytest.fixture(scope="module")
def items(lab: Lab) -> dict[str, Any]:
    return lab.furnish()


@pytest.fixture(scope="module")
def answers(lab: Lab, items: dict[str, Any]) -> dict[str, dict[str, httpx.Response]]:
    """The answer to each caller, by route; what is refused has changed nothing."""
    found: dict[str, dict[str, httpx.Response]] = {}
    for route in routes():
        for caller in CALLERS:
            may_change = caller in ("member", "owner", "admin") and not route.startswith("GET")
            mine = lab.furnish() if may_change else items
            before = lab.rows()
            answer = found.setdefault(route, {})[caller] = lab.ask(caller, route, mine)
            assert answer.status_code < 300 or lab.rows() == before, f"{caller}, refused, changed rows: {route}"
    return found


def test_the_table_says_who_gets_what(answers: dict[str, dict[str, httpx.Response]]) -> None:
    lines = [f"{'':56}" + "".join(f"{caller:>14}" for caller in CALLERS)]
    lines += [
        f"{route:56}" + "".join(f"{row[caller].status_code:>14}" for caller in CALLERS)
        for route, row in answers.items()
    ]
    text = "".join(f"{line}\n" for line in lines)
    if os.environ.get("UPDATE_RIGHTS"):
        TABLE.write_text(text)
    assert text == TABLE.read_text(), "somebody gets something else; if that is meant, set UPDATE_RIGHTS=1 and read on"


def test_nobody_gets_through_without_the_right(answers: dict[str, dict[str, httpx.Response]]) -> None:
    for route, row in answers.items():
        is_open, is_signed = route.startswith("GET /health/"), "/storage/" in route
        assert row["admin"].status_code < 300 or is_signed, f"{route} is not asked validly: {row['admin'].text}"
        for caller in ("no key", "old key"):
            assert row[caller].status_code == (200 if is_open else 403 if is_signed else 401), (route, caller)
        may_pass = is_open or route in FOR_ALL
        assert (row["other project"].status_code < 300) == may_pass, f"{route}: {row['other project'].text}"


def test_another_project_learns_nothing(
    lab: Lab, items: dict[str, Any], answers: dict[str, dict[str, httpx.Response]]
) -> None:
    missing = {name: NOWHERE if isinstance(value, str) else 999_999 for name, value in items.items()}
    for route, row in answers.items():
        answer = row["other project"]
        assert SECRET not in answer.text, route
        assert not any(str(items[name]) in answer.text for name in ("datasets", "samples", "files", "upload_id")), route
        assert "Crucible-Revision" not in answer.headers, route
        if "{" in route and answer.status_code == 404:  # what is hidden and what does not exist look the same
            absent = lab.ask("other project", route, missing)
            assert (answer.status_code, answer.text) == (absent.status_code, absent.text), route


def test_no_value_breaks_the_server(lab: Lab, answers: dict[str, dict[str, httpx.Response]]) -> None:
    """Each parameter and field of each route, given what it does not expect, is never answered with 500."""
    items = lab.furnish()
    for route in sorted(ROUTES, key=lambda route: route.method == "DELETE"):
        name = f"{route.method} {route.path}"
        query, body = REQUESTS.get(name, ({}, None))
        places = {where: kind.json_schema().get("properties", {}) for where, kind in route.types.items()}
        for where, key in ((where, key) for where, keys in places.items() for key in keys):
            for value in share((*TEXTS, *(OBJECTS if where == "body" else ())), 3):
                given = {**items, **({key: value} if where == "path" else {})}
                parts = [given.get(part, path_value(name, part, items)) for part in re.findall(r"{(\w+)}", route.path)]
                path = re.sub(r"{\w+}", "{}", route.path).format(*(quote(str(part), safe="") for part in parts))
                sent = {**(body or {}), **({key: value} if where == "body" else {})} if "body" in places else None
                asked = {**query, **({key: value} if where == "query" else {})}
                answer = lab.http.request(route.method, path, params=asked, json=sent, headers=lab.header("owner"))
                assert answer.status_code < 500, (name, where, key, value, answer.text)
