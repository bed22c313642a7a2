"""Requests to the storage host by signed links: the key is not sent there, and no link gets into logs or errors."""

from __future__ import annotations

import ipaddress
import logging
import os
import re
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import httpx

from crucible_lineage.client.connection import (
    STORAGE_CONNECT_S,
    STORAGE_READ_S,
    Connection,
    error_class_of,
    read_answer,
    retry_after_s,
    timeout_extension,
)
from crucible_lineage.errors import (
    TRANSIENT,
    CrucibleError,
    ServerError,
    UnreachableError,
)
from crucible_lineage.machine.disk import private_folder

REDIRECTS = 5

PRIVATE_LINKS, LINK_HOSTS = "CRUCIBLE_LINEAGE_PRIVATE_LINKS", "CRUCIBLE_LINEAGE_LINK_HOSTS"
STORES = (  # public object stores
    *("amazonaws.com", "backblazeb2.com", "blob.core.windows.net", "cloudflarestorage.com", "digitaloceanspaces.com"),
    *("storage.googleapis.com", "wasabisys.com"),
)


class Storage:
    """Sends requests to signed links. Thread-safe.

    A signed link lets anyone who reads it act on the file. httpx logs the URL of each request and keeps it in its
    exceptions. So the request has only the host as URL; path and query go into httpx's `target` extension, which also
    sends them exactly as signed. Links and their redirects may lead to `hosts` only.
    """

    def __init__(self, http: httpx.Client, hosts: LinkHosts) -> None:
        self._hosts = hosts
        self._http = http
        logging.getLogger("httpcore.http11").addFilter(_without_location)

    def put(
        self,
        url: str,
        action: str,
        *,
        headers: Mapping[str, str],
        content: Iterator[bytes] | bytes = b"",
        size: int = 0,
        read_s: float | None = None,
    ) -> httpx.Response:
        """Send a PUT and return the answer with its body, whatever its status. UnreachableError without one."""
        all_headers = {name: value for name, value in headers.items() if name.lower() != "content-length"}
        all_headers["Content-Length"] = str(size)
        request = self._request("PUT", url, all_headers, content, read_s)
        try:
            return read_answer(self._http.send(request, stream=True), action)
        except httpx.TransportError as cause:
            raise _no_answer(action, request, cause) from None

    @contextmanager
    def stream(self, url: str, action: str, *, headers: Mapping[str, str]) -> Iterator[httpx.Response]:
        """Return the answer to a GET, its body unread; redirects are followed."""
        for _ in range(REDIRECTS):
            request = self._request("GET", url, {"Accept-Encoding": "identity", **headers}, None, None)
            try:
                response = self._http.send(request, stream=True)
            except httpx.TransportError as cause:
                raise _no_answer(action, request, cause) from None
            if response.is_redirect:
                response.close()
                url = urljoin(url, response.headers["location"])
                continue
            try:
                yield response
            except httpx.TransportError as cause:
                raise _no_answer(action, request, cause) from None
            finally:
                response.close()
            return
        raise ServerError(f"could not {action}: storage redirected {REDIRECTS} times")

    def _request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        content: Iterator[bytes] | bytes | None,
        read_s: float | None,
    ) -> httpx.Request:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ServerError(f"the link for {method} is not an absolute http(s) URL, as Crucible's must be")
        self._hosts.require(url, method)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        wait_s = read_s or STORAGE_READ_S
        return httpx.Request(
            method,
            f"{parts.scheme}://{parts.netloc}",
            headers={"Host": parts.netloc, "User-Agent": "crucible-lineage", **headers},
            content=content,
            extensions={
                "target": target.encode("ascii"),
                "timeout": timeout_extension(STORAGE_CONNECT_S, wait_s),
            },
        )


FULL = 507  # not repeated, as for the service itself: the user can free some space


def storage_error(response: httpx.Response, action: str) -> CrucibleError:
    """Return the error for storage's answer. It has only the error code of the body; the rest may repeat the link."""
    status = response.status_code
    code = re.search(r"<Code>(\w{1,64})</Code>", response.text[:4096])
    message = f"could not {action}: storage answered {status} {code[1] if code else response.reason_phrase}".rstrip()
    error_class = ServerError if status == 408 else error_class_of(status)  # 408: it gave up waiting for bytes
    return error_class(
        message,
        status=status,
        code=code[1] if code else None,
        retry_after_s=retry_after_s(response.headers.get("retry-after")),
    )


def _without_location(record: logging.LogRecord) -> bool:
    """Mask redirect locations, which are signed links and which httpcore logs at DEBUG."""
    text = record.getMessage()
    if "ocation'" in text:
        record.msg, record.args = re.sub(r"(?i)(b'(?:content-)?location', b)'[^']*'", r"\1'***'", text), ()
    return True


class SignedUrlTransport(httpx.BaseTransport):
    """Passes the full URL to a caller's own transport; httpx's transport reads the extension itself."""

    def __init__(self, inner: httpx.BaseTransport) -> None:
        self._inner = inner

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        extensions = dict(request.extensions)
        url = str(request.url).rstrip("/") + extensions.pop("target").decode("ascii")
        stream = request.stream
        return self._inner.handle_request(
            httpx.Request(request.method, url, headers=request.headers, stream=stream, extensions=extensions)
        )


def _no_answer(action: str, request: httpx.Request, cause: httpx.TransportError) -> UnreachableError:
    host = request.url.netloc.decode("ascii")
    return UnreachableError(f"could not {action}: no answer from storage at {host} ({type(cause).__name__})")


class Tries:
    """The tries of one transfer. Only tries and waits are bounded, since sending may take minutes."""

    def __init__(self, connection: Connection, *transient: type[CrucibleError]) -> None:
        self._connection = connection
        self._transient: tuple[type[CrucibleError], ...] = (*TRANSIENT, *transient)
        self._number, self._waited_s = 1, 0.0

    def wait_s(self, error: CrucibleError) -> float:
        """Return the seconds before the next try. Raises the error after the last one, or if storage is full."""
        is_transient, policy = isinstance(error, self._transient) and error.status != FULL, self._connection.policy
        wait_s = policy.wait_s(self._number, self._waited_s, error.retry_after_s) if is_transient else None
        if wait_s is None:
            raise error
        self._number, self._waited_s = self._number + 1, self._waited_s + wait_s
        return wait_s


class LinkHosts:
    """The hosts that links of the service at `api_url` may lead to. Thread-safe.

    They are its own host and domain, public object stores, those in CRUCIBLE_LINEAGE_LINK_HOSTS, and the first other
    host that the service has named, which is remembered in `folder`. A private address, also behind a name, is accepted
    only if the service itself has one, or CRUCIBLE_LINEAGE_PRIVATE_LINKS is 1.
    """

    def __init__(self, api_url: str, folder: Path | None) -> None:
        self._own = _host(api_url)
        self._memory = folder / f"storage-of-{self._own}" if folder else None
        self._other = ""
        self._allows_private = is_private(api_url) or os.environ.get(PRIVATE_LINKS) == "1"
        self._listed = set(os.environ.get(LINK_HOSTS, "").replace(",", " ").lower().split())
        self._lock = threading.Lock()
        self._checked: set[str] = set()

    def require(self, url: str, method: str) -> None:
        """Raise ServerError if a link leads elsewhere. Each name is resolved once."""
        host = _host(url)
        if host in self._checked:
            return
        if not self._allows_private and (is_private(url) or _resolves_to_private(host)):
            raise ServerError(
                f"the link for {method} leads to the private address {host}, but Crucible has a public one; "
                f"it was not followed. If files are stored there, set {PRIVATE_LINKS}=1"
            )
        domain = self._own.partition(".")[2]
        trusted = (self._own, *([domain] if domain.count(".") else []), *STORES)
        is_expected = host in self._listed or any(host == name or host.endswith(f".{name}") for name in trusted)
        with self._lock:
            if not is_expected and (storage_host := self._storage_host(host)) != host:
                raise ServerError(
                    f"the link for {method} leads to {host}, and files of this Crucible were at {storage_host} so far; "
                    f"it was not followed. If files are also stored there, set {LINK_HOSTS}={host}"
                )
            self._checked.add(host)

    def _storage_host(self, host: str) -> str:
        """Return the other host that stores this service's files: `host`, if it is the first."""
        if self._memory is not None and not self._other:
            private_folder(self._memory.parent)
            try:
                with self._memory.open("x", encoding="ascii") as file:
                    file.write(host)
            except FileExistsError:
                self._other = self._memory.read_text(encoding="ascii")
        self._other = self._other or host
        return self._other


def is_private(url: str) -> bool:
    """Whether an address is on this machine or in a private network, as far as it shows without resolving names."""
    host = _host(url)
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        return "." not in host or host.endswith((".localhost", ".local", ".internal", ".home.arpa"))


def _host(url: str) -> str:
    return (urlsplit(url).hostname or "").rstrip(".").lower()


def _resolves_to_private(host: str) -> bool:
    try:
        addresses = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:  # a proxy may resolve it, which then is not in this network
        return False
    return any(not ipaddress.ip_address(str(address[4][0]).partition("%")[0]).is_global for address in addresses)
