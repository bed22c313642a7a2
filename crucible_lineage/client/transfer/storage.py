"""Talks to the storage host behind signed links: no key goes there, and no link gets into logs or errors."""

from __future__ import annotations

import ipaddress
import logging
import os
import random
import re
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import urljoin, urlsplit

import httpx

from crucible_lineage.client.http.connection import Timeouts, read_whole
from crucible_lineage.client.http.retry import RetryPolicy, RetryState, decide, retry_after_s
from crucible_lineage.errors import (
    CrucibleError,
    ForbiddenError,
    NotFoundError,
    RateLimitedError,
    RefusedError,
    ServerError,
    UnreachableError,
)
from crucible_lineage.service import LINKS, ServiceProfile

REDIRECTS = 5


PRIVATE_LINKS, LINK_HOSTS = "CRUCIBLE_LINEAGE_PRIVATE_LINKS", "CRUCIBLE_LINEAGE_LINK_HOSTS"
STORES = (  # public object stores
    *("amazonaws.com", "backblazeb2.com", "blob.core.windows.net", "cloudflarestorage.com", "digitaloceanspaces.com"),
    *("storage.googleapis.com", "wasabisys.com"),
)


class Storage:
    """Sends requests to signed links. Thread-safe.

    A signed link lets anyone who reads it act on the file. httpx logs the URL of each request and keeps it in its
    exceptions, so the request carries only the host; path and query travel in httpx's `target` extension, which also
    sends them exactly as they were signed. Links, and what they redirect to, lead to `hosts` only.
    """

    def __init__(self, timeouts: Timeouts, http: httpx.Client, hosts: LinkHosts) -> None:
        self._timeouts = timeouts
        self._hosts = hosts
        self._http = http
        logging.getLogger("httpcore.http11").addFilter(_WITHOUT_LOCATION)

    def put(
        self,
        url: str,
        what: str,
        *,
        headers: Mapping[str, str],
        content: Iterator[bytes] | bytes = b"",
        size: int = 0,
        read_s: float | None = None,
    ) -> httpx.Response:
        """The answer, read to its end, whatever its status. UnreachableError if none came."""
        sent = {name: value for name, value in headers.items() if name.lower() != "content-length"}
        sent["Content-Length"] = str(size)
        request = self._request("PUT", url, sent, content, read_s)
        try:
            return read_whole(self._http.send(request, stream=True), what)
        except httpx.TransportError as cause:
            raise _no_answer(what, request, cause) from None

    @contextmanager
    def stream(self, url: str, what: str, *, headers: Mapping[str, str]) -> Iterator[httpx.Response]:
        """The answer to GET, its body still to be read; redirects are followed."""
        for _ in range(REDIRECTS):
            request = self._request("GET", url, {"Accept-Encoding": "identity", **headers}, None, None)
            try:
                response = self._http.send(request, stream=True)
            except httpx.TransportError as cause:
                raise _no_answer(what, request, cause) from None
            if response.is_redirect:
                response.close()
                url = urljoin(url, response.headers["location"])
                continue
            try:
                yield response
            except httpx.TransportError as cause:
                raise _no_answer(what, request, cause) from None
            finally:
                response.close()
            return
        raise ServerError(f"could not {what}: storage redirects without end")

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
            raise ServerError(f"the link for {method} is not an absolute http(s) URL; Crucible must give absolute ones")
        self._hosts.require(url, method)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        wait_s = read_s or self._timeouts.storage_read_s
        return httpx.Request(
            method,
            f"{parts.scheme}://{parts.netloc}",
            headers={"Host": parts.netloc, "User-Agent": "crucible-lineage", **headers},
            content=content,
            extensions={
                "target": target.encode("ascii"),
                "timeout": {
                    "connect": self._timeouts.storage_connect_s,
                    "read": wait_s,
                    "write": wait_s,
                    "pool": wait_s,
                },
            },
        )


FULL = 507  # as the service's own answers, not repeated: who is told can free some room


def storage_error(response: httpx.Response, what: str) -> CrucibleError:
    """The error for storage's answer. Of its body only the error code is told: the rest may repeat the link."""
    status = response.status_code
    code = re.search(r"<Code>(\w{1,64})</Code>", response.text[:4096])
    message = f"could not {what}: storage answered {status} {code[1] if code else response.reason_phrase}".rstrip()
    classes: dict[int, type[CrucibleError]] = {403: ForbiddenError, 404: NotFoundError, 429: RateLimitedError}
    error_class = classes.get(status, ServerError if status >= 500 else RefusedError)
    return error_class(
        message,
        status=status,
        code=code[1] if code else None,
        retry_after_s=retry_after_s(response.headers.get("retry-after")),
    )


class _WithoutLocation(logging.Filter):
    """Blots out where an answer redirects to, which httpcore writes to its log at DEBUG and which is a signed link."""

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        if "ocation'" in text:
            record.msg, record.args = re.sub(r"(?i)(b'(?:content-)?location', b)'[^']*'", r"\1'***'", text), ()
        return True


_WITHOUT_LOCATION = _WithoutLocation()


class SignedUrlTransport(httpx.BaseTransport):
    """Gives a caller's own transport the full URL; httpx's transport reads the extension itself."""

    def __init__(self, inner: httpx.BaseTransport) -> None:
        self._inner = inner

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        extensions = dict(request.extensions)
        url = str(request.url).rstrip("/") + extensions.pop("target").decode("ascii")
        stream = request.stream
        return self._inner.handle_request(
            httpx.Request(request.method, url, headers=request.headers, stream=stream, extensions=extensions)
        )


def _no_answer(what: str, request: httpx.Request, cause: httpx.TransportError) -> UnreachableError:
    host = request.url.netloc.decode("ascii")
    return UnreachableError(f"could not {what}: no answer from storage at {host} ({type(cause).__name__})")


def storage_wait_s(
    error: CrucibleError, transient: bool, number: int, waited_s: float, policy: RetryPolicy
) -> float | None:
    """Seconds before bytes are sent again; only tries and waits are bounded, since sending them may take minutes.

    None if they are not: the tries are used up, or storage is full.
    """
    if error.status == FULL:
        return None
    status = 503 if transient and error.status is not None else error.status
    jitter = random.random()  # noqa: S311  spreads retries, guards nothing
    return decide(RetryState(number, waited_s, transient, status, True, error.retry_after_s, jitter), policy)


class LinkHosts:
    """The hosts that links of the service at `api_url` may lead to. Thread-safe.

    They are its own and those of its domain, public object stores, what CRUCIBLE_LINEAGE_LINK_HOSTS lists, and the
    one other host that it has named first. A private address, also of a name, is followed only if the
    service itself has one, or CRUCIBLE_LINEAGE_PRIVATE_LINKS is 1.
    """

    def __init__(self, api_url: str, service: ServiceProfile) -> None:
        self._own = _host(api_url)
        self._service = service
        self._takes_private = is_private(api_url) or os.environ.get(PRIVATE_LINKS) == "1"
        self._listed = set(os.environ.get(LINK_HOSTS, "").replace(",", " ").lower().split())
        self._lock = threading.Lock()
        self._checked: set[str] = set()

    def require(self, url: str, method: str) -> None:
        """Raise ServerError if a link leads elsewhere. A name is looked up once."""
        host = _host(url)
        if host in self._checked:
            return
        if not self._takes_private and (is_private(url) or _resolves_to_private(host)):
            raise ServerError(
                f"the link for {method} leads to the private address {host}, and Crucible has a public one; "
                f"it was not followed. If files are kept there, set {PRIVATE_LINKS}=1"
            )
        with self._lock:
            if not self._is_expected(host) and (known := self._named(host)) != host:
                raise ServerError(
                    f"the link for {method} leads to {host}, and files of this Crucible were at {known} so far; "
                    f"it was not followed. If files are also kept there, set {LINK_HOSTS}={host}"
                )
            self._checked.add(host)

    def _is_expected(self, host: str) -> bool:
        domain = self._own.partition(".")[2]
        own = {self._own, *([domain] if domain.count(".") else [])}
        return host in self._listed or any(host == one or host.endswith(f".{one}") for one in (*own, *STORES))

    def _named(self, host: str) -> str:
        """Return the other host that files of this service are kept at: this one, if it is the first."""
        if (known := self._service.seen(LINKS)) and not self._is_expected(known):
            return known
        self._service.note(LINKS, True, host)
        return host


def is_private(url: str) -> bool:
    """Return whether an address is one of this machine or a private network, as far as it shows without a look-up."""
    host = _host(url)
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        return "." not in host or host.endswith((".localhost", ".local", ".internal", ".home.arpa"))


def _host(url: str) -> str:
    return (urlsplit(url).hostname or "").rstrip(".").lower()


def _resolves_to_private(host: str) -> bool:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:  # a proxy may know it, which is none of this network then
        return False
    return any(not ipaddress.ip_address(str(one[4][0]).partition("%")[0]).is_global for one in found)
