"""Connections to the embedded Crucible on this machine: HTTP/1.1 by httptools, at half the cost of httpcore."""

from __future__ import annotations

import select
import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator

import httptools
import httpx

READ_BYTES = 1 << 16


class DirectClient(httpx.Client):
    """A client that passes requests unchanged to its transport.

    No call here uses cookies, redirects or httpx's authentication, which are a third of httpx's cost. If a later
    httpx does not call the method below, only speed is lost.
    """

    def __init__(self, transport: httpx.BaseTransport) -> None:
        super().__init__(transport=transport, timeout=None)
        self._wire = transport

    def _send_handling_auth(self, request: httpx.Request, *_: object, **__: object) -> httpx.Response:
        for hook in self.event_hooks["request"]:
            hook(request)
        response = self._wire.handle_request(request)
        response.request = request
        return response


class RestartingTransport(httpx.BaseTransport):
    """Sends requests to this machine, reusing the last connection. If no server listens, `revive` restarts it."""

    is_near = True  # slow answers mean that the machine is busy, and more threads would not help

    def __init__(self, revive: Callable[[], bool]) -> None:
        self._revive = revive
        self._free: deque[Loopback] = deque()
        self._all: list[Loopback] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Return the answer. Raises httpx.ConnectError if the server could not be restarted."""
        try:
            return self._send(request)
        except httpx.ConnectError:
            if not self._revive():
                raise
        return self._send(request)

    def close(self) -> None:
        """Close all connections."""
        for wire in self._all:
            wire.close()

    def _send(self, request: httpx.Request) -> httpx.Response:
        try:
            wire = self._free.pop()
        except IndexError:
            wire = Loopback(self._free.append)
            self._all.append(wire)
        return wire.handle_request(request)


class Loopback(httpx.BaseTransport):
    """A connection without TLS, for one request at a time. Opened on demand, and again if the server closed it.

    `release` receives the connection when an answer was closed, or a request failed.
    """

    def __init__(self, release: Callable[[Loopback], object] = lambda _: None) -> None:
        self._release = release
        self._socket: socket.socket | None = None
        self._address: tuple[str, int] | None = None

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Return the answer once its head has arrived. Raises httpx.TransportError as httpx's own transport does."""
        limits = request.extensions.get("timeout", {})
        try:
            connection = self._connected(request.url, limits.get("connect"))
            _send(connection, request, limits.get("write"))
            connection.settimeout(limits.get("read"))
            answer = _ResponseStream(connection, self._ended)
            answer.read_head()
        except BaseException:
            self._ended(is_reusable=False)
            raise
        return httpx.Response(answer.status, headers=answer.headers, stream=answer)

    def close(self) -> None:
        """Close the connection."""
        connection, self._socket = self._socket, None
        if connection is not None:
            connection.close()

    def _ended(self, *, is_reusable: bool) -> None:
        if not is_reusable:
            self.close()
        self._release(self)

    def _connected(self, url: httpx.URL, timeout_s: float | None) -> socket.socket:
        address = (url.host, url.port or 80)
        if self._socket is not None and (address != self._address or _has_ended(self._socket)):
            self.close()
        if self._socket is None:
            if url.scheme != "http":
                raise httpx.UnsupportedProtocol(f"{url.scheme}: connections to this machine have no TLS")
            try:
                self._socket = socket.create_connection(address, timeout_s)
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except TimeoutError as error:
                raise httpx.ConnectTimeout(str(error)) from error
            except OSError as error:
                raise httpx.ConnectError(str(error)) from error
            self._address = address
        return self._socket


def _has_ended(connection: socket.socket) -> bool:
    """Return whether an idle connection is readable, which can only mean its end."""
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(connection, select.POLLIN)
        return bool(poll.poll(0))
    return bool(select.select([connection], [], [], 0)[0])


def _send(connection: socket.socket, request: httpx.Request, timeout_s: float | None) -> None:
    """Send a request. A connection that closes meanwhile is no error yet: the answer may have arrived earlier."""
    connection.settimeout(timeout_s)
    target = request.extensions.get("target", request.url.raw_path)
    head = [b"%b %b HTTP/1.1" % (request.method.encode("ascii"), target)]
    head += (b"%b: %b" % pair for pair in request.headers.raw)
    if any(b"\n" in line or b"\r" in line for line in head):
        raise httpx.LocalProtocolError("a header has more than one line")
    assert isinstance(request.stream, httpx.SyncByteStream)
    for block in _with_head(b"\r\n".join(head) + b"\r\n\r\n", _body(request.stream, request.headers)):
        try:
            connection.sendall(block)
        except TimeoutError as error:
            raise httpx.WriteTimeout(str(error)) from error
        except OSError:
            return


def _body(blocks: Iterable[bytes], headers: httpx.Headers) -> Iterator[bytes]:
    if headers.get("transfer-encoding") != "chunked":
        yield from blocks
        return
    for block in blocks:
        if block:
            yield b"%x\r\n%b\r\n" % (len(block), block)
    yield b"0\r\n\r\n"


def _with_head(head: bytes, body: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the head together with the first block of the body, so that most requests are one packet."""
    yield head + next(body, b"")
    yield from body


class _ResponseStream(httpx.SyncByteStream):
    """An answer, read on demand. `ended` is called once, with whether the connection is usable for another request."""

    def __init__(self, connection: socket.socket, ended: Callable[..., None]) -> None:
        self._connection = connection
        self._ended: Callable[..., None] | None = ended
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)
        self._blocks: deque[bytes] = deque()
        self._has_head = self._is_complete = self._is_reusable = False
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []

    def read_head(self) -> None:
        """Read until status and headers are complete."""
        while not self._has_head:
            self._read()

    def __iter__(self) -> Iterator[bytes]:
        while True:
            while self._blocks:
                yield self._blocks.popleft()
            if self._is_complete:
                return
            self._read()

    def close(self) -> None:
        """Leave the connection to the next request if this answer was read completely, else close it."""
        self._parser = None  # it refers to this object
        ended, self._ended = self._ended, None
        if ended is not None:
            ended(is_reusable=self._is_reusable)

    def _read(self) -> None:
        try:
            data = self._connection.recv(READ_BYTES)
        except TimeoutError as error:
            raise httpx.ReadTimeout(str(error)) from error
        except OSError as error:
            raise httpx.ReadError(str(error)) from error
        if not data:
            raise httpx.RemoteProtocolError("the connection was closed before the answer was complete")
        assert self._parser is not None
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            raise httpx.RemoteProtocolError(str(error)) from error

    # Callbacks of httptools.

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        assert self._parser is not None
        self.status = self._parser.get_status_code()
        self._has_head = self.status >= 200  # informational ones precede the answer

    def on_body(self, block: bytes) -> None:
        self._blocks.append(block)

    def on_message_complete(self) -> None:
        if not self._has_head:
            self.headers.clear()
            return
        assert self._parser is not None
        self._is_complete, self._is_reusable = True, self._parser.should_keep_alive()
