"""The client: one object with a key, a pool of connections, and the calls of the service by subject."""

from __future__ import annotations

import functools
import os
import ssl
from pathlib import Path
from types import TracebackType

import httpx

from crucible_lineage.client.account import AccountCalls
from crucible_lineage.client.dataset.datasets import DatasetCalls
from crucible_lineage.client.dataset.deletions import DeletionCalls
from crucible_lineage.client.dataset.files import FileCalls
from crucible_lineage.client.dataset.metadata import MetadataCalls
from crucible_lineage.client.graphs import GraphCalls
from crucible_lineage.client.http.connection import Session, Timeouts
from crucible_lineage.client.http.retry import RetryPolicy
from crucible_lineage.client.http.wire import parse
from crucible_lineage.client.ingestions import IngestionCalls
from crucible_lineage.client.models import Health
from crucible_lineage.client.projects import InstrumentCalls, ProjectCalls
from crucible_lineage.client.samples import SampleCalls
from crucible_lineage.client.transfer.memory import UploadMemory
from crucible_lineage.client.transfer.storage import Storage, Unsealing
from crucible_lineage.errors import ServerError

__all__ = ["CrucibleClient"]

KEEPALIVE_S = (
    4.0  # below the 5 s after which common servers close an idle connection, so that no call meets a closing one
)


class CrucibleClient:
    """Calls Crucible's API at `api_url` with `api_key`. Thread-safe; making one sends nothing.

    Every call returns records of `crucible_lineage.client.models` or raises an error of `crucible_lineage.errors`.
    Calls that may be sent twice without harm are repeated as `retry` says. `transport` replaces the network, for
    API and storage. With a `state_folder`, an upload that was cut short is continued by the next process that
    uploads the same file.
    """

    def __init__(
        self,
        api_url: str,
        api_key: str,
        *,
        timeout: Timeouts = Timeouts(),  # noqa: B008  a frozen value
        retry: RetryPolicy = RetryPolicy(),  # noqa: B008  likewise
        transport: httpx.BaseTransport | None = None,
        state_folder: Path | None = None,
    ) -> None:
        trust = _trust(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))
        self._api = _connections(trust, transport)
        self._storage = _connections(trust, Unsealing(transport) if transport else None)
        session = Session(api_url, api_key, timeouts=timeout, retry=retry, http=self._api)
        self._session = session
        self.files = FileCalls(session, Storage(timeout, self._storage), UploadMemory(state_folder, session.api_url))
        self.metadata = MetadataCalls(session)
        self.ingestions = IngestionCalls(session)
        self.datasets = DatasetCalls(session, self.files, self.metadata, self.ingestions)
        self.samples = SampleCalls(session)
        self.instruments = InstrumentCalls(session)
        self.projects = ProjectCalls(session)
        self.account = AccountCalls(session)
        self.graphs = GraphCalls(session)
        self.deletions = DeletionCalls(session)

    @property
    def api_url(self) -> str:
        """The address of the API, without a slash at the end."""
        return self._session.api_url

    def health(self) -> Health:
        """Whether the service and its database work; asked without the key, and answered also when they do not."""
        what = "ask for the service's health"
        try:
            answer = self._session.call("GET", "/health/ready", what, authorized=False, is_final=lambda _: True)
        except ServerError as error:
            if error.status != 503:
                raise
            return Health(status="degraded")
        return parse(Health, answer, what)

    def close(self) -> None:
        """All connections are closed; nothing can be called afterwards."""
        self._api.close()
        self._storage.close()

    def __enter__(self) -> CrucibleClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"CrucibleClient({self.api_url!r})"


@functools.lru_cache(maxsize=4)
def _trust(_cert_file: str | None, _cert_dir: str | None) -> ssl.SSLContext:
    """The certificates that are trusted, which httpx reads from there; reading them takes 20 ms or more."""
    return httpx.create_ssl_context()


def _connections(trust: ssl.SSLContext, transport: httpx.BaseTransport | None) -> httpx.Client:
    limits = httpx.Limits(max_connections=64, max_keepalive_connections=16, keepalive_expiry=KEEPALIVE_S)
    return httpx.Client(transport=transport, limits=limits, verify=trust, timeout=None)  # noqa: S113  set per request
