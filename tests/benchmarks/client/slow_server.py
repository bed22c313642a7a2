"""A stand-in for a Crucible far away: every answer takes the time given in milliseconds. Prints its address."""

from __future__ import annotations

import json
import socket
import socketserver
import sys
import time
from typing import Any
from urllib.parse import parse_qs, urlsplit

DELAY_S = int(sys.argv[1]) / 1000 if len(sys.argv) > 1 else 0.0


class Handler(socketserver.StreamRequestHandler):
    """One connection, kept open; each answer leaves in a single send."""

    disable_nagle_algorithm = True

    def handle(self) -> None:
        while request := self.rfile.readline():
            method, target, _ = request.decode().split(" ", 2)
            length = 0
            while (line := self.rfile.readline().strip().lower()) != b"":
                if line.startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            body = json.loads(self.rfile.read(length)) if length else {}
            time.sleep(DELAY_S)
            content = json.dumps(answer(method, target, body)).encode()
            head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
            self.connection.sendall(head.encode() + content)


def answer(method: str, target: str, body: Any) -> Any:
    """What a registration needs to hear."""
    parts = urlsplit(target)
    segments = parts.path.removeprefix("/api/v3/").split("/")
    if segments[-1] == "datasets":
        return body | {"resource_type": "dataset"}
    if segments[-1] == "metadata":
        return {"unique_id": segments[1], "scientific_metadata": body}
    if segments[-1] == "keywords":
        return {"keyword": parse_qs(parts.query)["keyword"][0], "num_datasets": 1}
    return {"status": "ok"}


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 128
    address_family = socket.AF_INET


if __name__ == "__main__":
    with Server(("127.0.0.1", 0), Handler) as server:
        print(json.dumps({"url": f"http://127.0.0.1:{server.server_address[1]}/api/v3"}), flush=True)
        server.serve_forever()
