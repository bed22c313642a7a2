"""A recording stand-in for Crucible and its storage host, on two loopback ports, written from the wire contract alone.

It keeps what it is sent, signs upload parts, checks their checksums, and fails once or several times where a test asks
for it; what each route answers is in `stub_routes`. Every answer leaves in one send, since headers and body apart cost
40 ms each on a kept connection.
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
    """A fault of the next matching requests."""

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
    """`url` and `key` are for the client; `calls` and `storage_calls` are the requests received, in order."""

    key = KEY
    signature = SIGNATURE

    def __init__(self, routes: list[tuple[str, str, Callable[..., Any]]]) -> None:
        self.routes = routes
        self.part_size = 1 << 20
        self.link_lifetime_s = 3600.0
        self.signed_uploads = True
        self.forgets_sessions = False
        self.ingestion_states = ["requested", "complete"]
        self.calls: list[Call] = []
        self.storage_calls: list[Call] = []
        self.faults: list[Fault] = []
        self.datasets: dict[str, dict[str, Any]] = {}
        self.samples: dict[str, dict[str, Any]] = {}
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
        """Return method and path of each API call, without ids."""
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
        if call.headers.get("authorization") != f"Bearer {KEY}":
            return 401, {}, encode({"detail": "the key is not accepted"})
        with self._lock:
            for method, pattern, handler in self.routes:
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
        range_match = re.fullmatch(r"bytes=(\d+)-", call.headers.get("range", ""))
        if not range_match:
            return 200, {}, content
        start = int(range_match[1])
        if start >= len(content):
            return 416, {}, b""
        return 206, {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}, content[start:]

    def _receive(self, call: Call, session: Session) -> tuple[int, dict[str, str], bytes]:
        """Receive a chunk of a resumable upload, or a query of its position."""
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
        key = (dataset, filename)
        return next((f for f in self.files.values() if (f["dataset_mfid"], f["filename"]) == key), None)


def encode(value: Any) -> bytes:
    return b"" if value is None else json.dumps(value).encode()


def crc(content: bytes) -> str:
    return base64.b64encode(google_crc32c.value(content).to_bytes(4, "big")).decode()
