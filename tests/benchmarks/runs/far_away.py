"""A proxy before a Crucible, as if that were far away: `far_away.py URL MS`; prints its address as JSON.

Each request is held for so many milliseconds, however many are under way. On SIGTERM it prints every request: when it
came (by the machine's monotonic clock), on which connection, how long it took, and what it was.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from itertools import count
from urllib.parse import urlsplit

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class FarAway:
    """Passes requests on, one connection there for each one here, and writes down what it passed on."""

    def __init__(self, url: str, delay_s: float) -> None:
        parts = urlsplit(url)
        self.there = (str(parts.hostname), int(parts.port or 80))
        self.delay_s = delay_s
        self.asked: list[tuple[float, int, float, str]] = []
        self.connections = count(1)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until either end closes it."""
        number, there = next(self.connections), await asyncio.open_connection(*self.there)
        try:
            while (head := await _head(reader)) is not None:
                came = time.monotonic()
                body = await reader.readexactly(_length(head))
                await asyncio.sleep(self.delay_s)
                there[1].write(head + body)
                answered = await _head(there[0])
                if answered is None:
                    return
                without = head.startswith(b"HEAD ") or answered.split(b" ", 2)[1] in (b"204", b"304")
                writer.write(answered + (b"" if without else await _body(there[0], answered)))
                await writer.drain()
                what = head.split(b" HTTP", 1)[0].decode()
                self.asked.append((came, number, time.monotonic() - came, what))
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()
            there[1].close()


async def _head(reader: asyncio.StreamReader) -> bytes | None:
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None


async def _body(reader: asyncio.StreamReader, head: bytes) -> bytes:
    if b"transfer-encoding: chunked" not in head.lower():
        return await reader.readexactly(_length(head))
    whole = b""
    while True:
        size = await reader.readuntil(b"\r\n")
        whole += size + await reader.readexactly(int(size, 16) + 2)
        if int(size, 16) == 0:
            return whole


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.split(b":")[1])
    return 0


async def main(url: str, delay_ms: int) -> None:
    """Serves until it is told to end."""
    proxy, ended = FarAway(url, delay_ms / 1000), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0, backlog=256, limit=1 << 26)
    port = server.sockets[0].getsockname()[1]
    print(json.dumps({"url": f"http://127.0.0.1:{port}{urlsplit(url).path}"}), flush=True)
    await ended.wait()
    server.close()
    for came, number, took, what in sorted(proxy.asked):
        print(f"{came:.3f} {number:3d} {took:6.3f} {what}", flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
