"""A stand-in for Google Cloud Storage that counts requests and can be told to fail: as much of its JSON API as is used.

Objects in one process: uploads (media and multipart), lists, reads with ranges, deletions, generations as conditions.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import struct
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import google_crc32c


@dataclass
class Fault:
    """What goes wrong `times` times with requests that fit; `hits` says how often it did.

    status: such an answer; cut: it breaks after `bytes` of a download; lost: done, but not answered.
    """

    action: str
    method: str = ".*"
    path: str = ".*"
    times: int = 1
    status: int = 503
    bytes: int = 0
    hits: int = 0


class Refusal(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Dropped(Exception):
    """The connection is cut without an answer, or within one."""


class StorageStandIn:
    """`url` is for clients, `requests` are (method, target, status), in order."""

    def __init__(self, *buckets: str) -> None:
        self.faults: list[Fault] = []
        self.requests: list[tuple[str, str, int]] = []
        self.lock = threading.RLock()
        self.objects: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in buckets}
        self.contents: dict[tuple[str, str], bytes] = {}
        self._generation = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.stand_in = self  # type: ignore[attr-defined]
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def fault(self, action: str = "status", **fields: Any) -> None:
        """From now on this goes wrong."""
        self.faults.append(Fault(action, **fields))

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

    def store(self, bucket: str, name: str, content: bytes, kind: str | None, only_if: str | None) -> dict[str, Any]:
        """The object in its new generation; a Refusal if `only_if` is not the generation that is there."""
        with self.lock:
            held = self.objects[bucket].get(name)
            if only_if is not None and only_if != (held["generation"] if held else "0"):
                raise Refusal(412, "the generation is another one")
            self._generation = max(int(time.time() * 1e6), self._generation + 1)
            address = f"{self.url}/storage/v1/b/{bucket}/o/{quote(name, safe='')}"
            now = time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime())
            made = {
                "kind": "storage#object",
                "id": f"{bucket}/{name}/{self._generation}",
                "name": name,
                "bucket": bucket,
                "generation": str(self._generation),
                "metageneration": "1",
                "contentType": kind or "application/octet-stream",
                "size": str(len(content)),
                "crc32c": base64.b64encode(struct.pack(">I", google_crc32c.value(content))).decode(),
                "md5Hash": base64.b64encode(hashlib.md5(content).digest()).decode(),
                "etag": "CAE=",
                "timeCreated": now,
                "updated": now,
                "selfLink": address,
                "mediaLink": f"{address.replace('/storage', '/download/storage')}?alt=media",
            }
            self.objects[bucket][name], self.contents[bucket, name] = made, content
            return made

    def list(self, bucket: str, query: dict[str, str]) -> dict[str, Any]:
        """A page of objects by name, and of what stands for folders where there is a delimiter."""
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter")
        names = [name for name in sorted(self.objects[bucket]) if name.startswith(prefix)]
        inner = {name: name[len(prefix) :].split(delimiter)[0] for name in names} if delimiter else {}
        folders = {f"{prefix}{inner[n]}{delimiter}" for n in inner if len(n) > len(prefix) + len(inner[n])}
        items = [self.objects[bucket][name] for name in names if not any(name.startswith(folder) for folder in folders)]
        start, most = int(query.get("pageToken") or 0), int(query.get("maxResults") or 1000)
        page: dict[str, Any] = {"kind": "storage#objects", "items": items[start : start + most]}
        page |= {"nextPageToken": str(start + most)} if start + most < len(items) else {}
        return page | ({"prefixes": sorted(folders)} if folders else {})


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def answer(self) -> None:
        self.stand_in: StorageStandIn = self.server.stand_in  # type: ignore[attr-defined]
        self.status, self.broken = -1, None
        content = self.rfile.read(int(self.headers.get("content-length") or 0))
        address = urlsplit(self.path)
        self.query = dict(parse_qsl(address.query, keep_blank_values=True))
        try:
            self.broken = self._fault()
            if self.broken and self.broken.action == "status":
                raise Refusal(self.broken.status, "told to fail")
            self._route(address.path, content)
        except Refusal as refusal:
            error = {"code": refusal.status, "message": str(refusal), "errors": [{"message": str(refusal)}]}
            self._reply(refusal.status, {"error": error})
        except (Dropped, ConnectionError):
            self.close_connection = True
            self.connection.close()
        finally:
            self.stand_in.requests.append((self.command, self.path, self.status))

    do_GET = do_PUT = do_POST = do_DELETE = do_PATCH = do_HEAD = answer

    def finish(self) -> None:
        if self.connection.fileno() >= 0:
            super().finish()

    def _fault(self) -> Fault | None:
        with self.stand_in.lock:
            for fault in self.stand_in.faults:
                if fault.times and re.fullmatch(fault.method, self.command) and re.search(fault.path, self.path):
                    fault.times -= 1
                    fault.hits += 1
                    return fault
        return None

    def _route(self, path: str, content: bytes) -> None:
        if path == "/token":
            self._reply(200, {"access_token": "lent", "expires_in": 3600, "token_type": "Bearer"})
        elif found := re.fullmatch(r"/upload/storage/v1/b/([^/]+)/o/?", path):
            self._upload(unquote(found[1]), content)
        elif found := re.fullmatch(r"/storage/v1/b/([^/]+)/o/?", path):
            self._reply(200, self.stand_in.list(self._bucket(found[1]), self.query))
        elif found := re.fullmatch(r"/(?:download/)?storage/v1/b/([^/]+)/o/(.+)", path):
            self._object(self._bucket(found[1]), unquote(found[2]), path)
        elif found := re.fullmatch(r"/storage/v1/b/([^/]+)", path):
            self._reply(200, {"kind": "storage#bucket", "id": found[1], "name": self._bucket(found[1])})
        else:
            raise Refusal(404, "not found")

    def _bucket(self, name: str) -> str:
        if unquote(name) not in self.stand_in.objects:
            raise Refusal(404, "the bucket does not exist")
        return unquote(name)

    def _upload(self, bucket: str, content: bytes) -> None:
        name, kind = self.query.get("name"), self.headers.get("content-type")
        if self.query["uploadType"] == "multipart":
            fields, content, kind = _related(content, str(kind))
            name = fields.get("name") or name
        made = self.stand_in.store(self._bucket(bucket), str(name), content, kind, self.query.get("ifGenerationMatch"))
        self._reply(200, made)

    def _object(self, bucket: str, name: str, path: str) -> None:
        held = self.stand_in.objects[bucket].get(name)
        if held is None or self.query.get("generation", held["generation"]) != held["generation"]:
            raise Refusal(404, f"No such object: {bucket}/{name}")
        if self.command == "DELETE":
            del self.stand_in.objects[bucket][name]
            self._reply(204)
        elif self.query.get("alt") == "media" or path.startswith("/download/"):
            self._media(held, self.stand_in.contents[bucket, name])
        else:
            self._reply(200, held)

    def _media(self, held: dict[str, Any], content: bytes) -> None:
        start, end, status = 0, len(content), 200
        headers = {"x-goog-generation": held["generation"], "x-goog-hash": f"crc32c={held['crc32c']}"}
        if wanted := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("range") or ""):
            start, end, status = int(wanted[1]), min(int(wanted[2] or end) + 1, end), 206
            if start >= len(content):
                raise Refusal(416, "there is no such range")
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(content)}"
        self._reply(status, content[start:end], headers | {"Content-Type": held["contentType"]})

    def _reply(self, status: int, body: Any = b"", headers: dict[str, str] | None = None) -> None:
        if self.broken and self.broken.action == "lost":
            raise Dropped
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.status = status
        self.send_response(status)
        named = {"Content-Type": "application/json; charset=UTF-8", "Content-Length": str(len(content))}
        for name, value in {**named, **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        cut = self.broken.bytes if self.broken and self.broken.action == "cut" else None
        if self.command != "HEAD":
            self.wfile.write(content[:cut])
        if cut is not None:
            raise Dropped


def _related(raw: bytes, kind: str) -> tuple[dict[str, Any], bytes, str]:
    """(fields, content, its type) of a multipart/related body."""
    boundary = re.search(r"boundary=[\"']?([^\"';\s]+)", kind)
    assert boundary
    _, fields, content, _ = raw.split(f"--{boundary[1]}".encode())
    (_, _, described), (head, _, data) = (part.partition(b"\r\n\r\n") for part in (fields, content))
    if not described:  # some clients end lines with a bare line feed
        (_, _, described), (head, _, data) = (part.partition(b"\n\n") for part in (fields, content))
    named = re.search(rb"content-type:\s*([^\r\n]+)", head, re.IGNORECASE)
    ending = 2 if data.endswith(b"\r\n") else 1
    return json.loads(described), data[:-ending], named[1].decode() if named else "application/octet-stream"
