"""The client: one object with a key, a pool of connections, and the calls of the service by subject."""

from __future__ import annotations

import functools
import math
import os
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar
from urllib.request import getproxies

import httpx

from crucible_lineage.client.account import AccountCalls
from crucible_lineage.client.dataset.datasets import DatasetCalls
from crucible_lineage.client.dataset.deletions import DeletionCalls
from crucible_lineage.client.dataset.files import FileCalls
from crucible_lineage.client.dataset.metadata import MetadataCalls
from crucible_lineage.client.graphs import GraphCalls
from crucible_lineage.client.http.at_once import AtOnce
from crucible_lineage.client.http.connection import Connection, Timeouts
from crucible_lineage.client.http.lanes import Lanes
from crucible_lineage.client.http.retry import RetryPolicy
from crucible_lineage.client.http.wire import parse
from crucible_lineage.client.ingestions import IngestionCalls
from crucible_lineage.client.models import Health
from crucible_lineage.client.official import OfficialNames
from crucible_lineage.client.projects import InstrumentCalls, ProjectCalls
from crucible_lineage.client.samples import SampleCalls
from crucible_lineage.client.transfer.hosts import LinkHosts
from crucible_lineage.client.transfer.memory import UploadMemory
from crucible_lineage.client.transfer.storage import Storage, Unsealing
from crucible_lineage.errors import ServerError
from crucible_lineage.service import ServiceProfile
from crucible_lineage.settings import official_access

__all__ = ["CrucibleClient"]

Found = TypeVar("Found")

KEEPALIVE_S = (
    4.0  # below the 5 s after which common servers close an idle connection, so that no call meets a closing one
)
MOST_CONNECTIONS = 64


class CrucibleClient(OfficialNames):
    """Calls Crucible's API at `api_url` with `api_key`. Thread-safe; making one sends nothing.

    The calls are attributes by subject: `datasets`, `samples`, `files`, `metadata`, `ingestions`, `instruments`,
    `projects`, `graphs`, `deletions`, `account`. Each returns records of `client.models` or raises an error of
    `crucible_lineage.errors`: InputError before anything is sent, NotFoundError for what is not there or not for this
    key, ForbiddenError for what this key may not do, ConflictError for what is taken, RefusedError for what the service
    will not have, UnreachableError where no answer came. Calls that may be sent twice without harm are repeated as
    `retry` says. `transport` replaces the network, for API and storage. With a `state_folder`, an upload that was cut
    short is continued by the next process that uploads the same file. An address or a key that is not given is read
    where the official client reads it: CRUCIBLE_API_URL and CRUCIBLE_API_KEY, then its configuration file; the address
    is the public Crucible's where nothing names one, and a key that is nowhere is an InputError. `privilege_mode`
    (normal or elevated) is read likewise where the key is. `service` is what the service is known to do, and learns
    more. Source: the service's OpenAPI document, and what
    its official client sends.
    """

    subject = "client"

    def __init__(
        self,
        api_url: str | None = None,
        api_key: str | None = None,
        *,
        privilege_mode: str | None = None,
        timeout: Timeouts = Timeouts(),  # noqa: B008  a frozen value
        retry: RetryPolicy = RetryPolicy(),  # noqa: B008  likewise
        transport: httpx.BaseTransport | None = None,
        state_folder: Path | None = None,
        service: ServiceProfile | None = None,
    ) -> None:
        if api_url is None or api_key is None:
            access = official_access()
            api_url, privilege_mode = api_url or access.api_url, privilege_mode or access.privilege_mode
            api_key = api_key or access.required_key()
        self.service = service or ServiceProfile()
        # A closure, so that no attribute shows the key.
        self._repeating: Callable[[RetryPolicy], CrucibleClient] = lambda policy: CrucibleClient(
            api_url,
            api_key,
            privilege_mode=privilege_mode,
            timeout=timeout,
            retry=policy,
            transport=transport,
            state_folder=state_folder,
            service=self.service,
        )
        trust: ssl.SSLContext | bool = False  # a transport of its own has its own
        if transport is None:
            trust = _trust(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))
        self._api = _connections(trust, transport)
        self._storage = _connections(trust, Unsealing(transport) if transport else None)
        connection = Connection(
            api_url, api_key, timeouts=timeout, retry=retry, http=self._api, privilege_mode=privilege_mode
        )
        self._connection = connection
        self._at_once = AtOnce(lambda: connection.latency_s)
        memory = UploadMemory(state_folder, connection.api_url)
        self.files = FileCalls(
            connection,
            Storage(timeout, self._storage, LinkHosts(api_url, self.service)),
            memory,
            self.ahead,
            self.service,
        )
        self.metadata = MetadataCalls(connection)
        self.ingestions = IngestionCalls(connection)
        self.datasets = DatasetCalls(connection, self.files, self.metadata, self.ingestions, self.service)
        self.samples = SampleCalls(connection)
        self.instruments = InstrumentCalls(connection)
        self.projects = ProjectCalls(connection)
        self.account = AccountCalls(connection)
        self.graphs = GraphCalls(connection)
        self.deletions = DeletionCalls(connection)

    @property
    def api_url(self) -> str:
        """The address of the API, without a slash at the end."""
        return self._connection.api_url

    def another(self, retry: RetryPolicy) -> CrucibleClient:
        """A client of the same service that repeats calls in another way; it has connections of its own."""
        return self._repeating(retry)

    @contextmanager
    def repeating(self, for_s: float) -> Iterator[None]:
        """Repeat calls of the block for so long at most, whatever its policy says; 0: not at all.

        Calls that other threads make meanwhile are repeated as ever.
        """
        connection = self._connection
        policy = replace(connection.retry, attempts=math.inf, total_s=for_s, asked_total_s=for_s)
        token = connection.retry_within.set(policy)
        try:
            yield
        finally:
            connection.retry_within.reset(token)

    @property
    def latency_s(self) -> float:
        """Return the shortest latency of the recent answers; 0 before the first."""
        return self._connection.latency_s

    def at_once(self, *calls: Callable[[], Found]) -> list[Found]:
        """Make these independent calls of this client, side by side if that saves time. Returns their results in order.

        All are done, also if one of them fails; then it raises what the first of those raised.
        """
        return self._at_once.all(calls)

    def ahead(self, call: Callable[[], Found]) -> Callable[[], Found]:
        """Start this call now if answers take long. Returns a function that gives its outcome."""
        return self._at_once.ahead(call)

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        body: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """JSON of the answer to a call for which there is no method here; an error of this library otherwise."""
        return self._connection.call(method, path, f"{method} {path}", params=params, body=body, headers=headers)

    def health(self) -> Health:
        """Whether the service and its database work; asked without the key, and answered also when they do not."""
        what = "ask for the service's health"
        try:
            answer = self._connection.call("GET", "/health/ready", what, authorized=False, is_final=lambda _: True)
        except ServerError as error:
            if error.status != 503:
                raise
            return Health(status="degraded")
        return parse(Health, answer, what)

    def close(self) -> None:
        """All connections are closed; nothing can be called afterwards."""
        self._at_once.close()
        self._api.close()
        self._storage.close()

    def __enter__(self) -> CrucibleClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"CrucibleClient({self.api_url!r})"


@functools.lru_cache(maxsize=4)
def _trust(_cert_file: str | None, _cert_dir: str | None) -> ssl.SSLContext:
    """The certificates that are trusted, which httpx reads from there; reading them takes 20 ms or more."""
    return httpx.create_ssl_context()


def _connections(trust: ssl.SSLContext | bool, transport: httpx.BaseTransport | None) -> httpx.Client:
    if transport is None and not getproxies():  # httpx finds the way through a proxy, for its own pool only
        transport = Lanes(trust, most=MOST_CONNECTIONS, keepalive_s=KEEPALIVE_S)
    most = MOST_CONNECTIONS
    limits = httpx.Limits(max_connections=most, max_keepalive_connections=most, keepalive_expiry=KEEPALIVE_S)
    return httpx.Client(transport=transport, limits=limits, verify=trust, timeout=None)  # noqa: S113  set per request
