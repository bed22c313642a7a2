"""Connections: one for each open request, reused, released however the request ends, and never too many."""

from __future__ import annotations

import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import httpx
import pytest

from crucible_lineage.client.http import pool as connection_pool
from crucible_lineage.client.http.loopback import Loopback
from crucible_lineage.client.http.pool import PooledTransport

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Service(socketserver.ThreadingTCPServer):
    """Answers on connections that stay open; `meet` holds requests to /together until enough have arrived."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Connection)
        self.connections = 0
        self.lock = threading.Lock()
        self.meet = threading.Barrier(5, timeout=30)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Connection(socketserver.StreamRequestHandler):
    server: Service

    def handle(self) -> None:
        with self.server.lock:
            self.server.connections += 1
        while request := self.rfile.readline():
            while self.rfile.readline().strip():
                pass
            path = request.split()[1]
            if path == b"/together":
                self.server.meet.wait()
            if path == b"/lost":
                return
            self.wfile.write(OK)


@pytest.fixture
def service() -> Iterator[Service]:
    with Service() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


ONE = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=60)


@pytest.fixture(params=[partial(httpx.HTTPTransport, limits=ONE), Loopback], ids=["httpx", "loopback"])
def wire(request: pytest.FixtureRequest) -> Iterator[PooledTransport]:
    found = PooledTransport(request.param, maximum=5, keepalive_s=60.0)
    yield found
    found.close()


def test_requests_at_once_have_connections_of_their_own_and_later_ones_use_them_again(
    service: Service, wire: PooledTransport
) -> None:
    with httpx.Client(transport=wire) as http, ThreadPoolExecutor(5) as pool:
        answers = list(pool.map(http.get, [f"{service.url}/together"] * 5))
        assert [answer.text for answer in answers] == ["ok"] * 5
        assert [http.get(service.url).text for _ in range(20)] == ["ok"] * 20
    assert service.connections == 5


def test_connections_are_limited_and_a_long_wait_is_an_error(service: Service, wire: PooledTransport) -> None:
    with httpx.Client(transport=wire, timeout=httpx.Timeout(30, pool=0.05)) as http:
        held = [http.send(http.build_request("GET", service.url), stream=True) for _ in range(5)]
        with pytest.raises(httpx.PoolTimeout):
            http.get(service.url)
        for answer in held:
            answer.read()
        assert http.get(service.url).text == "ok"
    assert service.connections == 5


def test_a_connection_that_is_lost_or_refused_takes_no_room(service: Service, wire: PooledTransport) -> None:
    with httpx.Client(transport=wire, timeout=httpx.Timeout(30, pool=0.05)) as http:
        for _ in range(10):
            with pytest.raises(httpx.TransportError):
                http.get(f"{service.url}/lost")
            with pytest.raises(httpx.ConnectError):
                http.get("http://127.0.0.1:9")
        assert http.get(service.url).text == "ok"


def test_those_that_nobody_needed_for_long_are_closed(
    service: Service, wire: PooledTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    with httpx.Client(transport=wire) as http, ThreadPoolExecutor(5) as pool:
        list(pool.map(http.get, [f"{service.url}/together"] * 5))
        now = connection_pool.time.monotonic()
        monkeypatch.setattr(connection_pool.time, "monotonic", lambda: now + 61)
        http.get(service.url)
        assert len(wire._free) == 1


def test_the_command_line_of_httpx_and_http2_are_imported_only_on_demand() -> None:
    code = (
        "import sys, crucible_lineage.client; print(sorted({'rich', 'pygments', 'h2'} & set(sys.modules)));"
        "from httpcore._sync.http2 import HTTP2Connection; print(HTTP2Connection.__name__)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split("\n")[:2] == ["[]", "HTTP2Connection"]
