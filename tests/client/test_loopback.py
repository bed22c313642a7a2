"""Connections to the embedded Crucible: every answer, in any pieces, is read as httpx reads it."""

from __future__ import annotations

import random
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import pytest

from crucible_lineage.client import CrucibleClient
from crucible_lineage.client.loopback import Loopback, RestartingTransport

Serve = Callable[[socket.socket], None]
TIMEOUT = {"timeout": {"connect": 5.0, "read": 5.0, "write": 5.0, "pool": 5.0}}


@contextmanager
def served(*connections: Serve) -> Iterator[str]:
    """Accept one connection for each of these functions, and let it answer."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            for one in connections:
                with listening.accept()[0] as connection:
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    one(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
        thread.join(5)


def request_read(connection: socket.socket) -> bytes:
    """Read one request, its body included."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(4096)
    head, _, body = data.partition(b"\r\n\r\n")
    lengths = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")]
    while lengths and len(body) < int(lengths[0]):
        body += connection.recv(4096)
    while b"transfer-encoding: chunked" in head.lower() and not body.endswith(b"0\r\n\r\n"):
        body += connection.recv(4096)
    return head + b"\r\n\r\n" + body


def answering(*pieces: bytes) -> Serve:
    def serve(connection: socket.socket) -> None:
        request_read(connection)
        for piece in pieces:
            connection.sendall(piece)

    return serve


def answer_of(transport: httpx.BaseTransport, url: str) -> object:
    """Return the answer, or the class of the error."""
    request = httpx.Request("GET", url, extensions=TIMEOUT)
    try:
        response = transport.handle_request(request)
        try:
            body = response.read()
        finally:
            response.close()
    except httpx.TransportError as error:
        return type(error)
    return response.status_code, sorted(response.headers.multi_items()), body


def random_answer(rng: random.Random) -> bytes:
    body = rng.randbytes(rng.choice([0, 1, 10, 5000]))
    status = rng.choice([b"200 OK", b"404 Not Found", b"503 Busy", b"204 No Content", b"200 "])
    headers = [
        b"Content-Type: text/plain",
        *(b"X-%d: %s" % (n, b"v" * rng.randrange(40)) for n in range(rng.randrange(4))),
    ]
    if status.startswith(b"204"):
        sent = b""
    elif rng.random() < 0.5:
        headers.append(b"Content-Length: %d" % len(body))
        sent = body
    else:
        headers.append(b"Transfer-Encoding: chunked")
        cut = rng.randrange(len(body) + 1)
        sent = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:cut], body[cut:]) if part) + b"0\r\n\r\n"
    before = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" if rng.random() < 0.2 else b""
    answer = before + b"HTTP/1.1 " + status + b"\r\n" + b"\r\n".join(headers) + b"\r\n\r\n" + sent
    return answer[: rng.randrange(len(answer))] if rng.random() < 0.25 else answer


@pytest.mark.parametrize("seed", range(60))
def test_an_answer_is_read_as_httpx_reads_it(seed: int) -> None:
    rng = random.Random(seed)
    answer = random_answer(rng)
    cuts = sorted(rng.randrange(len(answer) + 1) for _ in range(rng.randrange(6)))
    pieces = [answer[start:end] for start, end in zip([0, *cuts], [*cuts, len(answer)], strict=True)]
    with served(answering(*pieces), answering(*pieces)) as url:
        with Loopback() as ours, httpx.HTTPTransport() as theirs:
            assert answer_of(ours, url) == answer_of(theirs, url)


@pytest.mark.parametrize("body", [b"", b"x" * 300_000, [b"one", b"", b"two"]])
def test_a_request_arrives_as_httpx_sends_it(body: bytes | list[bytes]) -> None:
    arrived = []

    def note(connection: socket.socket) -> None:
        arrived.append(request_read(connection))
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    with served(note, note) as url:
        for transport in (Loopback(), httpx.HTTPTransport()):
            content = body if isinstance(body, bytes) else iter(body)
            extensions = {**TIMEOUT, "target": b"/signed?as=%2F"}
            sent = httpx.Request("PUT", url, content=content, headers={"If-Match": "e"}, extensions=extensions)
            with transport:
                transport.handle_request(sent).close()
    assert arrived[0] == arrived[1]
    assert arrived[0].startswith(b"PUT /signed?as=%2F HTTP/1.1\r\n")


def test_an_answer_before_the_request_was_read_is_received() -> None:
    def refuse(connection: socket.socket) -> None:
        connection.recv(10)
        connection.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(1 << 16):
            pass

    with served(refuse) as url:
        request = httpx.Request("PUT", url, content=b"x" * 5_000_000, extensions=TIMEOUT)
        with Loopback() as wire:
            assert wire.handle_request(request).status_code == 413


def test_a_connection_serves_the_next_request_only_if_nothing_is_left_on_it() -> None:
    answer, closing = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", b"HTTP/1.1 200 OK\r\nConnection: close\r\n"

    def first(connection: socket.socket) -> None:
        for _ in range(2):
            answering(answer + b"first")(connection)
        answering(answer + b"fir")(connection)  # the rest is never read
        assert connection.recv(10) == b""

    second = answering(closing + b"Content-Length: 6\r\n\r\nsecond")
    with served(first, second, answering(answer + b"third")) as url, Loopback() as wire:
        assert [answer_of(wire, url) for _ in range(2)] == [(200, [("content-length", "5")], b"first")] * 2
        wire.handle_request(httpx.Request("GET", url, extensions=TIMEOUT)).close()
        assert "second" in str(answer_of(wire, url))
        assert "third" in str(answer_of(wire, url))


def test_a_connection_that_ended_while_idle_is_opened_again() -> None:
    ok = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    with served(answering(ok), answering(ok)) as url, Loopback() as wire:
        assert answer_of(wire, url) == (200, [("content-length", "2")], b"ok")
        connection = wire._socket
        assert connection is not None
        select.select([connection], [], [], 5)
        assert answer_of(wire, url) == (200, [("content-length", "2")], b"ok")


def test_a_file_that_cannot_be_read_is_no_fault_of_the_connection() -> None:
    def body() -> Iterator[bytes]:
        yield b"x"
        raise OSError("the disk fails")

    with served(lambda connection: None) as url, Loopback() as wire, pytest.raises(OSError, match="the disk fails"):
        wire.handle_request(httpx.Request("PUT", url, content=body(), extensions=TIMEOUT))


def test_a_header_of_two_lines_is_not_sent() -> None:
    with served(lambda connection: None) as url, Loopback() as wire, pytest.raises(httpx.LocalProtocolError):
        wire.handle_request(httpx.Request("GET", url, headers={"If-Match": "a\r\nX: b"}, extensions=TIMEOUT))


def test_a_server_of_this_machine_is_never_far() -> None:
    slow = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"

    def late(connection: socket.socket) -> None:
        request_read(connection)
        time.sleep(0.05)
        connection.sendall(slow)

    for transport, is_near in ((RestartingTransport(lambda: False), True), (httpx.HTTPTransport(), False)):
        with served(late) as url, CrucibleClient(url, "key", transport=transport) as client:
            client.request("GET", "/x")
            assert (client.latency_s == 0.0) is is_near
