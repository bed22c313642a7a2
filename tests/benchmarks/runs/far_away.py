"""A proxy before a Crucible, as if that were far away: `far_away.py URL MS LOG`; prints its address as JSON.

Each request is held for so many milliseconds, however many are under way; LOG gets a line for each.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from urllib.parse import urlsplit


class FarAway:
    """Passes requests on, one connection there for each one here, and writes down what it passed on."""

    def __init__(self, url: str, delay_s: float, log: str) -> None:
        parts = urlsplit(url)
        self.there = (str(parts.hostname), int(parts.port or 80))
        self.delay_s = delay_s
        self.log = Path(log).open("w", buffering=1)  # noqa: SIM115 (as long as the process)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until either end closes it."""
        there = await asyncio.open_connection(*self.there)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                body = await reader.readexactly(_length(head))
                self.log.write(head.split(b" HTTP", 1)[0].decode() + "\n")
                await asyncio.sleep(self.delay_s)
                there[1].write(head + body)
                answered = await there[0].readuntil(b"\r\n\r\n")
                without = head.startswith(b"HEAD ") or answered.split(b" ", 2)[1] in (b"204", b"304")
                writer.write(answered + (b"" if without else await _body(there[0], answered)))
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()
            there[1].close()


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


async def main(url: str, delay_ms: int, log: str) -> None:
    """Serves until it is ended."""
    proxy = FarAway(url, delay_ms / 1000, log)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0, backlog=256, limit=1 << 26)
    port = server.sockets[0].getsockname()[1]
    print(json.dumps({"url": f"http://127.0.0.1:{port}{urlsplit(url).path}"}), flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
