"""A proxy before an object store that counts requests, and fails where a test says so; it hands out tokens, too."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import httpx


@dataclass
class Fault:
    """What goes wrong `times` times with GET requests of a path; `hits` says how often it did.

    status: such an answer; cut: it breaks after `bytes` of a download; changed: its first byte is another one.
    """

    action: str
    path: str
    times: int = 1
    status: int = 503
    bytes: int = 0
    hits: int = 0


class FaultyProxy:
    """`url` is for clients, `there` the store's address; `requests` are the targets of GET requests, in order."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        self.lock = threading.Lock()
        self.there = httpx.Client()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.proxy = self  # type: ignore[attr-defined]
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self.there.close()

    def fault(self, action: str, **fields: Any) -> None:
        """Let this go wrong from now on."""
        self.faults.append(Fault(action, **fields))

    def next_fault(self, target: str) -> Fault | None:
        with self.lock:
            self.requests.append(target)
            for fault in self.faults:
                if fault.times and re.search(fault.path, target):
                    fault.times -= 1
                    fault.hits += 1
                    return fault
        return None

    def service_account(self) -> dict[str, str]:
        """The key of an account, made for this; its tokens are handed out here."""
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import rsa

        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        kinds = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        return {
            "type": "service_account",
            "project_id": "lab",
            "client_email": "lab@lab.iam.gserviceaccount.com",
            "private_key_id": "1",
            "private_key": key.private_bytes(*kinds).decode(),
            "token_uri": f"{self.url}/token",
        }


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def answer(self) -> None:
        proxy: FaultyProxy = self.server.proxy  # type: ignore[attr-defined]
        content = self.rfile.read(int(self.headers.get("content-length") or 0))
        fault = proxy.next_fault(self.path) if self.command == "GET" else None
        if self.path == "/token":
            there = httpx.Response(200, json={"access_token": "lent", "expires_in": 3600, "token_type": "Bearer"})
        elif fault and fault.action == "status":
            there = httpx.Response(fault.status, json={"error": {"code": fault.status, "message": "a fault"}})
        else:
            headers = {
                name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")
            }
            there = proxy.there.request(self.command, self.path, content=content, headers=headers)
        body = there.content
        if fault and fault.action == "changed":
            body = bytes([body[0] ^ 1]) + body[1:]
        self.send_response(there.status_code)
        for name, value in there.headers.items():
            if name not in ("content-length", "content-encoding", "transfer-encoding", "connection", "date"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        cut = fault.bytes if fault and fault.action == "cut" else None
        self.wfile.write(body[:cut])
        if cut is not None:
            self.close_connection = True

    do_GET = do_PUT = do_POST = do_DELETE = do_PATCH = answer
