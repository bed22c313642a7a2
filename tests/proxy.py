"""A proxy before a server; what goes wrong with a call is what `handle` of a subclass does with it."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

HOP = ("content-length", "connection", "transfer-encoding")  # headers of one connection


class Call(BaseHTTPRequestHandler):
    """A call, to be forwarded, answered or dropped."""

    protocol_version = "HTTP/1.1"
    server: Proxy

    def log_message(self, *_: Any) -> None:
        return

    def any_method(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.handle(self)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = any_method

    def forward(self) -> tuple[int, dict[str, str], bytes]:
        """Let the server act, and return its answer: status, headers and content."""
        connection = HTTPConnection(self.server.target, timeout=60)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in HOP:
                    connection.putheader(name, value)
            connection.putheader("Content-Length", str(len(self.body)))
            connection.endheaders(self.body or None)
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()

    def answer(self, status: int, headers: Mapping[str, str], content: bytes, cut: int | None = None) -> None:
        """Answer; `cut` after so many bytes."""
        kept = {name: value for name, value in headers.items() if name.lower() not in HOP}
        lines = [f"HTTP/1.1 {status} Said", *(f"{name}: {value}" for name, value in kept.items())]
        head = "\r\n".join([*lines, f"Content-Length: {len(content)}"]).encode() + b"\r\n\r\n"
        try:
            # in one write: a second one would wait for the receiver, who acknowledges the first a while later
            self.wfile.write(head + content[:cut])
        except OSError:
            cut = 0
        self.close_connection |= cut is not None

    def drop(self) -> None:
        """Close the connection without an answer."""
        self.close_connection = True
        self.connection.close()


class Proxy(ThreadingHTTPServer):
    """A proxy before the server at `target` (HOST:PORT) that passes all on; `url` is its own address."""

    daemon_threads = True

    def __init__(self, target: str = "") -> None:
        super().__init__(("127.0.0.1", 0), Call)
        self.target = target
        self.lock = threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        every_s = 0.02  # it looks whether it is to end
        self.thread = threading.Thread(target=self.serve_forever, args=(every_s,), daemon=True)
        self.thread.start()

    def handle(self, call: Call) -> None:
        """Pass a call on."""
        call.answer(*call.forward())

    def close(self) -> None:
        self.shutdown()
        self.server_close()
        self.thread.join()
