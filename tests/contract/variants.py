"""A proxy before the embedded Crucible that behaves in a few requests as other services may."""

from __future__ import annotations

import http.client
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from crucible_lineage.ids import has_derived_id, new_mfid

API = "/api/v3"
MFID = re.compile(r"[0-9a-hjkmnp-tv-z]{26}")
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "date", "server"}


@dataclass
class Request:
    """A request as received; a variant may change it before it is forwarded."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body) if self.body else None


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})


HandOn = Callable[[Request], Answer]
Variant = Callable[[Request, HandOn], Answer]


def refused(status: int, detail: str) -> Answer:
    return Answer(status, json.dumps({"detail": detail}).encode())


def own_ids(request: Request, hand_on: HandOn) -> Answer:
    """Assigns an id to each dataset, ignoring the requested one."""
    if (request.method, request.path) == ("POST", "/datasets"):
        request.body = json.dumps({**request.json, "unique_id": new_mfid()}).encode()
    return hand_on(request)


def version_7(request: Request, hand_on: HandOn) -> Answer:
    """Accepts ids of version 7 only."""
    if (request.method, request.path) == ("POST", "/datasets") and has_derived_id(request.json.get("unique_id")):
        return refused(422, "unique_id must be a UUID version 7")
    return hand_on(request)


def plain_keywords(request: Request, hand_on: HandOn) -> Answer:
    """Refuses `:` in keywords."""
    if any(":" in word for word in request.query.get("keyword", ())):
        return refused(422, "keyword: only letters, digits, blanks, - and _")
    return hand_on(request)


def strict_metadata(request: Request, hand_on: HandOn) -> Answer:
    """Refuses keys of metadata that it does not know."""
    if re.fullmatch(r"/resources/[^/]+/metadata", request.path) and request.method in ("POST", "PATCH"):
        unknown = sorted(set(request.json) - {"temperature", "wavelength_nm"})
        if unknown:
            return refused(422, f"unknown metadata key {unknown[0]!r}")
    return hand_on(request)


def no_graphs(request: Request, hand_on: HandOn) -> Answer:
    """Has no graph endpoint."""
    missing = request.path.startswith(("/entity_graph_cte/", "/project_graph/"))
    return refused(404, "Not Found") if missing else hand_on(request)


def plain(request: Request, hand_on: HandOn) -> Answer:
    """Behaves as the embedded Crucible."""
    return hand_on(request)


def upserts(request: Request, hand_on: HandOn) -> Answer:
    """Overwrites an existing dataset when its id is posted again."""
    answer = hand_on(request)
    if (request.method, request.path, answer.status) == ("POST", "/datasets", 409):
        fields = {k: v for k, v in request.json.items() if k in ("dataset_name", "measurement", "timestamp")}
        mfid = request.json["unique_id"]
        return hand_on(Request("PATCH", f"/datasets/{mfid}", {}, {**request.headers}, json.dumps(fields).encode()))
    return answer


def odd(request: Request, hand_on: HandOn) -> Answer:
    """Refuses nothing, and does little of what is needed: it forgets, mixes up, or answers with something else."""
    kind, keyword = (request.method, MFID.sub("*", request.path)), request.query.get("keyword", [""])[0]
    if kind == ("DELETE", "/files/*"):
        return Answer(204, b"")
    if kind[1].endswith("/upload/initiate") and b"empty.txt" in request.body:
        return refused(503, "busy")
    if kind == ("POST", "/resources/*/metadata") and "second" in request.json:
        request.method = "PATCH"
    request.headers = {name: value for name, value in request.headers.items() if name.lower() != "accept-encoding"}
    answer = hand_on(request)
    got = json.loads(answer.body) if answer.body.startswith(b"{") else {}
    if kind == ("POST", "/datasets") and answer.status == 409:
        return hand_on(replace(request, body=json.dumps({**request.json, "unique_id": new_mfid()}).encode()))
    if kind == ("GET", "/resources/*/metadata"):
        kept = {key: value for key, value in got["scientific_metadata"].items() if key not in ("first", "text")}
        got["scientific_metadata"] = kept
    elif kind == ("GET", "/datasets"):
        got["items"] = [{**found, "links": []} for found in got["items"] if "pipeline:" not in keyword]
    elif kind == ("GET", "/datasets/*"):
        got["modification_time"] = "2024-05-01T12:00:00Z"
    elif kind == ("GET", "/files/*/download_link"):
        LINKS.append(got["url"])
        got["url"] = LINKS[0]
    elif kind == ("GET", "/entity_graph_cte/*"):
        got["edges"] = [{}]
    return Answer(answer.status, json.dumps(got).encode()) if got else answer


LINKS: list[str] = []
VARIANTS: dict[str, Variant] = {
    answer.__name__: answer
    for answer in (plain, own_ids, version_7, plain_keywords, strict_metadata, no_graphs, upserts, odd)
}


class Door:
    """A service of one variant, at `url`, before the embedded Crucible at `behind`; `seen` has its requests."""

    def __init__(self, behind: str, api_key: str, variant: Variant) -> None:
        self.behind, self.api_key = behind, api_key
        self.inner = urlsplit(behind)
        self.variant = variant
        self.seen: list[str] = []
        door = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def log_message(self, *args: Any) -> None:
                return

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                parts = urlsplit(self.path)
                path, query = parts.path.removeprefix(API), parse_qs(parts.query, keep_blank_values=True)
                request = Request(self.command, path, query, dict(self.headers), body)
                door.seen.append(f"{request.method} {request.path}")
                is_api = parts.path.startswith(API)
                answer = door.variant(request, door._hand_on) if is_api else door._forward(self.path, request)
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                self.wfile.write(answer.body)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}{API}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _hand_on(self, request: Request) -> Answer:
        query = urlencode(request.query, doseq=True)
        return self._forward(f"{API}{request.path}{'?' + query if query else ''}", request)

    def _forward(self, target: str, request: Request) -> Answer:
        assert self.inner.hostname is not None
        connection = http.client.HTTPConnection(self.inner.hostname, self.inner.port, timeout=60)
        headers = {k: v for k, v in request.headers.items() if k.lower() not in HOP_BY_HOP}
        try:
            connection.request(request.method, target, request.body or None, headers)
            got = connection.getresponse()
            content = got.read()
        finally:
            connection.close()
        kept = {name: value for name, value in got.getheaders() if name.lower() not in HOP_BY_HOP}
        return Answer(got.status, content, kept)
