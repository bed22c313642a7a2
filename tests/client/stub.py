"""A recording stand-in for Crucible and its storage host, on two loopback ports, written from the wire contract alone.

It keeps what it is sent, signs upload parts, checks their checksums, and fails once or several times where a test asks
for it. Every answer leaves in one send, since headers and body apart cost 40 ms each on a kept connection.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import google_crc32c

KEY = "key-that-must-not-leak"
SIGNATURE = "signature-that-must-not-leak"
PROJECT = "0tr5jy0tmdyfz0009dyhngwt50"
INSTRUMENT = "0tr5jy0tmdx8d0000s2sp3sfgr"


@dataclass(frozen=True)
class Call:
    """A request as it arrived."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


@dataclass
class Fault:
    """What happens instead of, or to, the next requests that fit."""

    method: str
    pattern: str
    kind: (
        str  # status: answer with it; lost: do it, close unanswered; cut: close before; short: cut the body; pass: none
    )
    times: int = 1
    status: int = 503
    headers: dict[str, str] = field(default_factory=dict)
    body: Any = None
    wait_s: float = 0.0
    action: Callable[[], None] | None = None


@dataclass
class Session:
    dataset: str
    filename: str
    size: int
    sha256: str
    replaces: str | None = None
    parts: dict[int, bytes] = field(default_factory=dict)
    received: bytearray = field(default_factory=bytearray)
    record: dict[str, Any] | None = None


class Refusal(Exception):
    def __init__(self, status: int, detail: Any) -> None:
        self.status = status
        self.detail = detail


class Stub:
    """`url` and `key` are for the client; `calls` and `storage_calls` are what came in, in order."""

    key = KEY
    signature = SIGNATURE
    project_mfid = PROJECT
    instrument_mfid = INSTRUMENT

    def __init__(self) -> None:
        self.part_size = 1 << 20
        self.link_lifetime_s = 3600.0
        self.signed_uploads = True
        self.forgets_sessions = False
        self.token = "token-that-must-not-leak"
        self.bucket = "mf-storage-prod"
        self.read_bucket: Callable[[str], bytes] | None = None
        self.ingestion_states = ["requested", "complete"]
        self.calls: list[Call] = []
        self.storage_calls: list[Call] = []
        self.faults: list[Fault] = []
        self.datasets: dict[str, dict[str, Any]] = {}
        self.samples: dict[str, dict[str, Any]] = {}
        self.metadata: dict[str, dict[str, Any]] = {}
        self.keywords: dict[str, list[str]] = {}
        self.children: dict[tuple[str, str], str | None] = {}
        self.thumbnails: dict[str, list[dict[str, Any]]] = {}
        self.files: dict[str, dict[str, Any]] = {}
        self.contents: dict[str, bytes] = {}
        self.sessions: dict[str, Session] = {}
        self.requests: list[dict[str, Any]] = []
        self.polls: dict[int, int] = {}
        self._initiated: dict[str, str] = {}
        self._lock = threading.RLock()
        self._connections: set[socket.socket] = set()
        self._servers = [self._serve(self._api, self.calls), self._serve(self._store, self.storage_calls)]
        self.url = f"http://127.0.0.1:{self._servers[0].server_address[1]}/api/v3"
        self.storage_url = f"http://127.0.0.1:{self._servers[1].server_address[1]}"

    def fault(self, method: str, pattern: str, kind: str = "status", **options: Any) -> None:
        self.faults.append(Fault(method, pattern, kind, **options))

    def close(self) -> None:
        for server in self._servers:
            server.shutdown()
        for connection in list(self._connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for server in self._servers:
            server.server_close()

    def seen(self) -> list[str]:
        """Method and path of each API call, ids left out."""
        return [re.sub(r"\b[0-9a-hjkmnp-tv-z]{26}\b", "ID", str(call)) for call in self.calls]

    # ---------------------------------------------------------------- plumbing

    def _serve(self, respond: Callable[[Call], tuple[int, dict[str, str], bytes]], log: list[Call]) -> Any:
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def setup(self) -> None:
                super().setup()
                stub._connections.add(self.connection)

            def finish(self) -> None:
                stub._connections.discard(self.connection)
                super().finish()

            def log_message(self, *args: Any) -> None:
                return

            def handle_one_request(self) -> None:
                try:
                    super().handle_one_request()
                except (ConnectionError, ValueError):
                    self.close_connection = True

            def answer(self) -> None:
                parts = urlsplit(self.path)
                assert "transfer-encoding" not in {name.lower() for name in self.headers}
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length)
                if len(body) < length:
                    self.close_connection = True
                    return
                headers = {name.lower(): value for name, value in self.headers.items()}
                query = parse_qs(parts.query, keep_blank_values=True)
                call = Call(self.command, unquote(parts.path.removeprefix("/api/v3")), query, headers, body)
                log.append(call)
                fault = stub._due(call)
                if fault is not None:
                    time.sleep(fault.wait_s)
                    if fault.action:
                        fault.action()
                if fault is not None and fault.kind == "cut":
                    self.close_connection = True
                    return
                if fault is not None and fault.kind == "short":
                    status, sent, content = 200, dict(fault.headers), fault.body
                    self.close_connection = True
                elif fault is not None and fault.kind == "status":
                    status, sent, content = fault.status, dict(fault.headers), encode(fault.body)
                else:
                    status, sent, content = respond(call)
                if fault is not None and fault.kind == "lost":
                    self.close_connection = True
                    return
                sent.setdefault("Content-Length", str(len(content)))
                head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"
                head += "".join(f"{name}: {value}\r\n" for name, value in sent.items())
                self.wfile.write(head.encode() + b"\r\n" + content)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        server.block_on_close = False
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return server

    def _due(self, call: Call) -> Fault | None:
        with self._lock:
            for fault in self.faults:
                if fault.times and fault.method == call.method and re.search(fault.pattern, call.path):
                    fault.times -= 1
                    return fault
        return None

    def _api(self, call: Call) -> tuple[int, dict[str, str], bytes]:
        open_to_all = call.path.startswith("/health/")
        if not open_to_all and call.headers.get("authorization") != f"Bearer {KEY}":
            return 401, {}, encode({"detail": "the key is not accepted"})
        with self._lock:
            for method, pattern, handler in ROUTES:
                match = re.fullmatch(pattern.replace("ID", "([^/]+)"), call.path)
                if method == call.method and match:
                    try:
                        return 200, {"Content-Type": "application/json"}, encode(handler(self, call, *match.groups()))
                    except Refusal as refusal:
                        return refusal.status, {}, encode({"detail": refusal.detail})
        return 404, {}, encode({"detail": "Not Found"})

    def _store(self, call: Call) -> tuple[int, dict[str, str], bytes]:
        if call.query.get("sig") != [SIGNATURE]:
            return 403, {}, b"<Error><Code>SignatureDoesNotMatch</Code></Error>"
        with self._lock:
            kind, name, *rest = call.path.strip("/").split("/")
            if kind == "moved":
                return 302, {"Location": f"/object/{name}?sig={SIGNATURE}"}, b""
            if kind == "object":
                return self._read_object(call, self.contents[name])
            session = self.sessions[name]
            if kind == "resumable":
                return self._receive(call, session)
            if call.headers["x-goog-hash"] != f"crc32c={crc(call.body)}":
                return 400, {}, b"<Error><Code>BadDigest</Code></Error>"
            session.parts[int(rest[0])] = call.body
            return 200, {}, b""

    def _read_object(self, call: Call, content: bytes) -> tuple[int, dict[str, str], bytes]:
        wanted = re.fullmatch(r"bytes=(\d+)-", call.headers.get("range", ""))
        if not wanted:
            return 200, {}, content
        start = int(wanted[1])
        if start >= len(content):
            return 416, {}, b""
        return 206, {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}, content[start:]

    def _receive(self, call: Call, session: Session) -> tuple[int, dict[str, str], bytes]:
        """A chunk of a resumable upload, or the question how far it has come."""
        content_range = call.headers["content-range"]
        if chunk := re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", content_range):
            start = int(chunk[1])
            if start > len(session.received):
                return 503, {}, b""
            session.received[start : start + len(call.body)] = call.body
        if len(session.received) == session.size:
            return 200, {}, encode({"crc32c": crc(bytes(session.received))})
        held = {"Range": f"bytes=0-{len(session.received) - 1}"} if session.received else {}
        return 308, held, b""

    def sign(self, path: str) -> str:
        return f"{self.storage_url}/{path}?sig={SIGNATURE}&part=%2Fa%20b"

    # ---------------------------------------------------------------- state

    def dataset(self, mfid: str) -> dict[str, Any]:
        if mfid not in self.datasets:
            raise Refusal(404, "Dataset not found")
        return self.datasets[mfid]

    def new_id(self, kind: str) -> str:
        number = len(self.files) + len(self.samples) + len(self.sessions)
        return f"0tk{kind}{number:020d}00"[:26]

    def add_file(self, dataset: str, filename: str, content: bytes, mfid: str | None = None) -> dict[str, Any]:
        mfid = mfid or self.new_id("f")
        self.contents[mfid] = content
        digest = hashlib.sha256(content).hexdigest()
        self.files[mfid] = {
            "mfid": mfid,
            "dataset_mfid": dataset,
            "filename": filename,
            "size": len(content),
            "sha256_hash": digest,
            "storage_backend": "gcs",
            "storage_path": f"bucket/{dataset}/_files/{mfid}",
            "etag": f'"{digest[:8]}"',
        }
        return self.files[mfid]

    def existing(self, dataset: str, filename: str) -> dict[str, Any] | None:
        wanted = (dataset, filename)
        return next((f for f in self.files.values() if (f["dataset_mfid"], f["filename"]) == wanted), None)


def encode(value: Any) -> bytes:
    return b"" if value is None else json.dumps(value).encode()


def crc(content: bytes) -> str:
    return base64.b64encode(google_crc32c.value(content).to_bytes(4, "big")).decode()


def page(call: Call, items: list[Any]) -> dict[str, Any]:
    """Cursor style: the cursor is the number of the next item."""
    limit = int(call.query.get("limit", ["100"])[0])
    start = int(call.query.get("cursor", ["0"])[0])
    end = start + limit
    following = str(end) if end < len(items) else None
    return {"items": items[start:end], "limit": limit, "total": len(items), "next_cursor": following}


def offset_page(call: Call, items: list[Any]) -> dict[str, Any]:
    limit = int(call.query.get("limit", ["100"])[0])
    start = int(call.query.get("offset", ["0"])[0])
    return {"items": items[start : start + limit], "limit": limit, "total": len(items), "offset": start}


def create_dataset(stub: Stub, call: Call) -> Any:
    mfid = call.json["unique_id"]
    if mfid in stub.datasets:
        raise Refusal(409, "a dataset with this MFID exists")
    stub.datasets[mfid] = {**call.json, "resource_type": "dataset"}
    return stub.datasets[mfid]


def read_dataset(stub: Stub, call: Call, mfid: str) -> Any:
    record = dict(stub.dataset(mfid))
    if call.query.get("include_metadata"):
        record["scientific_metadata"] = stub.metadata.get(mfid)
    return record


def change_dataset(stub: Stub, call: Call, mfid: str) -> Any:
    stub.dataset(mfid).update(call.json)
    return stub.dataset(mfid)


def list_datasets(stub: Stub, call: Call) -> Any:
    records = sorted(stub.datasets.values(), key=lambda record: record["unique_id"], reverse=True)
    for name in ("measurement", "project_id", "dataset_name"):
        if name in call.query:
            records = [record for record in records if record.get(name) == call.query[name][0]]
    for word in call.query.get("keyword", []):
        records = [r for r in records if any(word in held for held in stub.keywords.get(r["unique_id"], []))]
    return page(call, records)


def merge_metadata(stub: Stub, call: Call, mfid: str) -> Any:
    stub.metadata[mfid] = {**stub.metadata.get(mfid, {}), **call.json}
    return {"unique_id": mfid, "scientific_metadata": stub.metadata[mfid]}


def replace_metadata(stub: Stub, call: Call, mfid: str) -> Any:
    if mfid in stub.metadata and call.query.get("overwrite") != ["true"]:
        raise Refusal(409, "metadata exists")
    stub.metadata[mfid] = call.json
    return {"unique_id": mfid, "scientific_metadata": call.json}


def read_metadata(stub: Stub, call: Call, mfid: str) -> Any:
    found = stub.metadata.get(mfid)
    return {"unique_id": mfid, "scientific_metadata": found} if found is not None else None


def add_keyword(stub: Stub, call: Call, mfid: str) -> Any:
    stub.dataset(mfid)
    word = call.query["keyword"][0]
    held = stub.keywords.setdefault(mfid, [])
    if word not in held:
        held.append(word)
    return {"keyword": word, "num_datasets": 1}


def link(stub: Stub, call: Call, parent: str, child: str) -> Any:
    stub.children[parent, child] = call.query.get("relationship_type", [None])[0]
    return {"parent_id": parent, "child_id": child}


def unlink(stub: Stub, call: Call, parent: str, child: str) -> Any:
    if (parent, child) not in stub.children:
        raise Refusal(404, "no such link")
    del stub.children[parent, child]
    return {"detail": "unlinked"}


def list_children(stub: Stub, call: Call, parent: str) -> Any:
    return offset_page(call, [stub.datasets[child] for above, child in stub.children if above == parent])


def list_parents(stub: Stub, call: Call, child: str) -> Any:
    return offset_page(call, [stub.datasets[parent] for parent, below in stub.children if below == child])


def add_thumbnail(stub: Stub, call: Call, mfid: str) -> Any:
    pictures = stub.thumbnails.setdefault(mfid, [])
    pictures.append({"id": len(pictures) + 1, "mime_type": "image/png", **call.json})
    return pictures[-1]


def initiate(stub: Stub, call: Call, dataset: str) -> Any:
    stub.dataset(dataset)
    if not stub.signed_uploads:
        raise Refusal(503, "New multipart uploads are disabled")
    body = call.json
    taken = stub.existing(dataset, body["filename"])
    if taken and (taken["sha256_hash"], taken["size"]) == (body["sha256_hash"], body["size"]):
        return {"upload_id": None, "state": "completed", "existing_file": taken}
    if taken:
        conflict = {"code": "filename_exists", "message": "Filename already exists"}
        raise Refusal(409, {**conflict, "file_mfid": taken["mfid"], "etag": taken["etag"]})
    return open_session(stub, call, Session(dataset, body["filename"], body["size"], body["sha256_hash"]))


def initiate_replacement(stub: Stub, call: Call, file: str) -> Any:
    record, body = stub.files[file], call.json
    if call.headers["if-match"] not in ("*", record["etag"]):
        raise Refusal(412, {"code": "etag_mismatch", "etag": record["etag"]})
    session = Session(record["dataset_mfid"], record["filename"], body["size"], body["sha256_hash"], replaces=file)
    return open_session(stub, call, session)


def open_session(stub: Stub, call: Call, session: Session) -> Any:
    key = call.headers["idempotency-key"]
    upload_id = stub._initiated.setdefault(key, f"upload-{len(stub.sessions) + 1}")
    stub.sessions.setdefault(upload_id, session)
    count = -(-session.size // stub.part_size)
    answer = {"upload_id": upload_id, "state": "uploading", "part_size": stub.part_size, "part_count": count}
    return {**answer, "parts": [], "existing_file": None}


def upload_status(stub: Stub, call: Call, dataset: str, upload_id: str) -> Any:
    if upload_id not in stub.sessions or stub.forgets_sessions:
        raise Refusal(404, "no such upload")
    numbers = sorted(stub.sessions[upload_id].parts)
    after = [n for n in numbers if n > int(call.query.get("part_number_marker", ["0"])[0])]
    marker = after[1] if len(after) > 2 else None  # two a page, so that paging is always met
    shown = after[:2] if marker else after
    parts = [{"part_number": n} for n in shown]
    return {"upload_id": upload_id, "state": "uploading", "parts": parts, "next_part_number_marker": marker}


def sign_parts(stub: Stub, call: Call, dataset: str, upload_id: str) -> Any:
    session = stub.sessions[upload_id]
    wanted = call.json["parts"]
    if not 1 <= len(wanted) <= 32:
        raise Refusal(422, "1 to 32 parts")
    expires = time.gmtime(time.time() + stub.link_lifetime_s)
    parts = []
    for part in wanted:
        offset = (part["part_number"] - 1) * stub.part_size
        size = min(stub.part_size, session.size - offset)
        parts.append(
            {
                "part_number": part["part_number"],
                "url": stub.sign(f"part/{upload_id}/{part['part_number']}"),
                "method": "PUT",
                "headers": {"x-goog-hash": f"crc32c={part['crc32c']}", "Content-Length": str(size)},
                "offset": offset,
                "size": size,
                "expires_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", expires),
            }
        )
    return {"parts": parts}


def complete_signed(stub: Stub, call: Call, dataset: str) -> Any:
    session = stub.sessions[call.json["upload_id"]]
    content = b"".join(session.parts[number] for number in sorted(session.parts))
    if call.json["crc32c"] != crc(content):
        raise Refusal(422, "crc32c does not fit")
    return finish(stub, call, session, content)


def complete_plain(stub: Stub, call: Call, dataset: str) -> Any:
    session = stub.sessions[call.json["upload_id"]]
    lent = stub.read_bucket(f"{dataset}/{session.filename}") if stub.read_bucket else None
    return finish(stub, call, session, bytes(session.received) if lent is None else lent)


def finish(stub: Stub, call: Call, session: Session, content: bytes) -> Any:
    if hashlib.sha256(content).hexdigest() != call.json["sha256_hash"] or len(content) != session.size:
        raise Refusal(422, "sha256 does not fit")
    if session.record is None:
        session.record = stub.add_file(session.dataset, session.filename, content, session.replaces)
    return session.record


def abort(stub: Stub, call: Call, dataset: str, upload_id: str) -> Any:
    del stub.sessions[upload_id]


def initiate_resumable(stub: Stub, call: Call, dataset: str) -> Any:
    body = call.json
    taken = stub.existing(dataset, body["filename"])
    if taken and taken["sha256_hash"] == body["sha256_hash"]:
        return {"existing_file": taken}
    upload_id = f"upload-{len(stub.sessions) + 1}"
    stub.sessions[upload_id] = Session(dataset, body["filename"], body["size"], body["sha256_hash"])
    uri = stub.sign(f"resumable/{upload_id}")
    return {"upload_id": upload_id, "resumable_uri": uri, "chunk_size_hint": 262144, "existing_file": None}


def lend_token(stub: Stub, call: Call, dataset: str) -> Any:
    upload_id = f"upload-{len(stub.sessions) + 1}"
    body = call.json
    stub.sessions[upload_id] = Session(dataset, body["filename"], body["size"], body["sha256_hash"])
    lent = {"upload_id": upload_id, "access_token": stub.token, "project": "facility", "bucket": stub.bucket}
    return {**lent, "object_prefix": f"{dataset}/", "existing_file": None}


def request_ingestion(stub: Stub, call: Call, file: str) -> Any:
    entry = {
        "id": len(stub.requests) + 1,
        "status": call.query["status"][0],
        "file_mfid": file,
        "dataset_mfid": stub.files[file]["dataset_mfid"],
        "ingestion_class": call.query.get("ingestion_class", [None])[0],
        "time_created": "2026-03-01T10:00:00+00:00",
    }
    stub.requests.append(entry)
    return entry


def read_ingestion(stub: Stub, call: Call, number: str) -> Any:
    entry = stub.requests[int(number) - 1]
    polls = stub.polls[entry["id"]] = stub.polls.get(entry["id"], 0) + 1
    return {**entry, "status": stub.ingestion_states[min(polls, len(stub.ingestion_states)) - 1]}


def create_sample(stub: Stub, call: Call) -> Any:
    mfid = call.json.get("unique_id") or stub.new_id("s")
    stub.samples[mfid] = {**call.json, "unique_id": mfid, "resource_type": "sample"}
    return stub.samples[mfid]


def list_projects(stub: Stub, call: Call) -> Any:
    known = [{"unique_id": PROJECT, "resource_type": "project", "project_id": "demo-raman", "title": "Raman"}]
    wanted = call.query.get("project_id")
    return offset_page(call, [p for p in known if not wanted or p["project_id"] == wanted[0].lower()])


def list_instruments(stub: Stub, call: Call) -> Any:
    known = [{"unique_id": INSTRUMENT, "instrument_id": "raman-1", "instrument_name": "Raman 1"}]
    wanted = call.query.get("instrument_id")
    return offset_page(call, [i for i in known if not wanted or i["instrument_id"] == wanted[0].lower()])


ROUTES: list[tuple[str, str, Callable[..., Any]]] = [
    ("GET", "/health/ready", lambda stub, call: {"status": "ok", "database": {"status": "ok"}}),
    ("GET", "/account", lambda stub, call: {"user_unique_id": "0000-0002-1825-0097", "access_group_ids": [1]}),
    ("POST", "/datasets", create_dataset),
    ("GET", "/datasets", list_datasets),
    ("GET", "/datasets/ID", read_dataset),
    ("PATCH", "/datasets/ID", change_dataset),
    ("GET", "/datasets/ID/keywords", lambda stub, call, m: [{"keyword": k} for k in stub.keywords.get(m, [])]),
    ("POST", "/datasets/ID/keywords", add_keyword),
    ("POST", "/datasets/ID/children/ID", link),
    ("DELETE", "/datasets/ID/children/ID", unlink),
    ("GET", "/datasets/ID/children", list_children),
    ("GET", "/datasets/ID/parents", list_parents),
    ("POST", "/datasets/ID/samples/ID", lambda stub, call, d, s: {"dataset_id": d, "sample_id": s}),
    ("DELETE", "/datasets/ID/samples/ID", lambda stub, call, d, s: {"detail": "unlinked"}),
    ("PUT", "/datasets/ID/instrument", lambda stub, call, m: {"dataset_mfid": m, "instrument": {}}),
    ("GET", "/datasets/ID/thumbnails", lambda stub, call, m: stub.thumbnails.get(m, [])),
    ("POST", "/datasets/ID/thumbnails", add_thumbnail),
    ("GET", "/datasets/ID/files", lambda stub, call, m: [f for f in stub.files.values() if f["dataset_mfid"] == m]),
    (
        "GET",
        "/datasets/ID/download_links",
        lambda stub, call, m: {f: stub.sign(f"object/{f}") for f, r in stub.files.items() if r["dataset_mfid"] == m},
    ),
    ("PATCH", "/resources/ID/metadata", merge_metadata),
    ("POST", "/resources/ID/metadata", replace_metadata),
    ("GET", "/resources/ID/metadata", read_metadata),
    ("PUT", "/resources/ID/access/public", lambda stub, call, m: {"principal_id": "public"}),
    ("DELETE", "/resources/ID/access/public", lambda stub, call, m: None),
    ("POST", "/resources/ID/project", lambda stub, call, m: {"resource_id": m}),
    ("POST", "/resources/ID/delete", lambda stub, call, m: {"id": 1, "status": "pending", "resource_id": m}),
    ("POST", "/datasets/ID/upload/multipart/initiate", initiate),
    ("GET", "/datasets/ID/upload/multipart/ID", upload_status),
    ("POST", "/datasets/ID/upload/multipart/ID/parts", sign_parts),
    ("POST", "/datasets/ID/upload/multipart/complete", complete_signed),
    ("DELETE", "/datasets/ID/upload/multipart/ID", abort),
    ("POST", "/files/ID/upload/multipart/initiate", initiate_replacement),
    ("POST", "/datasets/ID/upload/initiate", initiate_resumable),
    ("POST", "/datasets/ID/upload/initiate/multipart", lend_token),
    ("POST", "/datasets/ID/upload/complete", complete_plain),
    ("GET", "/files", lambda stub, call: offset_page(call, list(stub.files.values()))),
    ("GET", "/files/ID", lambda stub, call, f: stub.files[f]),
    ("GET", "/files/ID/download_link", lambda stub, call, f: {"url": stub.sign(f"moved/{f}"), "expires_in": 3600}),
    ("POST", "/files/ID/ingest", request_ingestion),
    ("GET", "/ingestion_requests/ID", read_ingestion),
    ("GET", "/ingestion_requests", lambda stub, call: offset_page(call, stub.requests)),
    ("GET", "/ingestors", lambda stub, call: ["H5Ingestor"]),
    ("POST", "/samples", create_sample),
    ("GET", "/samples/ID", lambda stub, call, m: stub.samples[m]),
    ("GET", "/projects", list_projects),
    ("GET", "/instruments", list_instruments),
    ("GET", "/entity_graph_cte/ID", lambda stub, call, m: {"nodes": [{"id": m}], "links": []}),
]
