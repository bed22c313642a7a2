"""The way to a Crucible on this machine, which is started again when it is found gone."""

from __future__ import annotations

from collections.abc import Callable

import httpx

from crucible_lineage.client.http.lanes import Lanes

__all__ = ["Reviving"]

KEEPALIVE_S = 60.0  # the shared server closes no idle connection


class Reviving(httpx.BaseTransport):
    """Sends requests to this machine. Where nobody listens, `revive` is asked, who says if somebody does now."""

    def __init__(self, revive: Callable[[], bool]) -> None:
        self._revive = revive
        self._wire = Lanes(False, most=64, keepalive_s=KEEPALIVE_S)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """The answer; httpx.ConnectError if nobody could be brought to listen."""
        try:
            return self._wire.handle_request(request)
        except httpx.ConnectError:
            if not self._revive():
                raise
        return self._wire.handle_request(request)

    def close(self) -> None:
        """All connections are closed."""
        self._wire.close()
