"""The client: one object with a key, a connection pool, and the calls of the service grouped by subject."""

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

import httpx

from crucible_lineage.client.connection import Calls, Connection, RetryPolicy
from crucible_lineage.client.contents import MetadataCalls
from crucible_lineage.client.datasets import DatasetCalls, DeletionCalls, LinkedCalls, RequestCalls
from crucible_lineage.client.files import FileCalls, IngestionCalls
from crucible_lineage.client.filters import InstrumentCalls, ProjectCalls
from crucible_lineage.client.models import Account, NewAccount, Profile, Sample, SampleCreate
from crucible_lineage.client.storage import LinkHosts, SignedUrlTransport, Storage
from crucible_lineage.client.wire import segment, to_send
from crucible_lineage.errors import ServerError
from crucible_lineage.json_types import JsonMapping, JsonObject
from crucible_lineage.machine.process import in_threads
from crucible_lineage.settings import official_access

Result = TypeVar("Result")

MAX_CONNECTIONS = 64
FAR_S = 0.015  # chosen: for faster answers a thread is not worthwhile
LIMITS = httpx.Limits(
    max_connections=MAX_CONNECTIONS,
    max_keepalive_connections=MAX_CONNECTIONS,
    keepalive_expiry=4.0,  # s; common servers close a connection that was idle for 5 s
)


class CrucibleClient:
    """Calls Crucible's API at `api_url` with `api_key`. Thread-safe; creating one sends nothing.

    The calls are attributes by subject: `datasets`, `samples`, `files`, `metadata`, `ingestions`, `instruments`,
    `projects`, `graphs`, `deletions`, `account`. Each returns records of `client.models` or raises an error of
    `crucible_lineage.errors`: InputError before anything is sent, NotFoundError for what does not exist or this key may
    not see, ForbiddenError for what this key may not do, ConflictError for what exists already, RefusedError for what
    the service rejects, UnreachableError without an answer. Calls that are safe to send twice are repeated as `retry`
    says. `transport` replaces the network, for API and storage. With a `state_folder`, an interrupted upload is
    continued by the next process that uploads the same file.

    Without an address or key, the client reads CRUCIBLE_API_URL and CRUCIBLE_API_KEY, then the official client's
    configuration file. The default address is the public Crucible's; a missing key is an InputError. `privilege_mode`
    (normal or elevated) is read from where the key is. Source: the service's OpenAPI document, and what its official
    client sends.
    """

    def __init__(
        self,
        api_url: str | None = None,
        api_key: str | None = None,
        *,
        privilege_mode: str | None = None,
        retry: RetryPolicy = RetryPolicy(),  # noqa: B008  a frozen value
        transport: httpx.BaseTransport | None = None,
        state_folder: Path | None = None,
    ) -> None:
        if api_url is None or api_key is None:
            api_url, api_key, privilege_mode = official_access(api_url, api_key, privilege_mode)
        options: dict[str, Any] = {"privilege_mode": privilege_mode, "transport": transport}
        # A closure, so that no attribute exposes the key.
        self._with_retry: Callable[[RetryPolicy], CrucibleClient] = lambda policy: CrucibleClient(
            api_url, api_key, retry=policy, state_folder=state_folder, **options
        )
        trust: ssl.SSLContext | bool = False  # a given transport has its own
        if transport is None:
            trust = _trust(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))
        self._api = _connections(trust, transport)
        self._storage = _connections(trust, SignedUrlTransport(transport) if transport else None)
        connection = Connection(
            *(api_url, api_key),
            retry=retry,
            http=self._api,
            privilege_mode=privilege_mode,
            is_embedded=isinstance(transport, RestartingTransport),
        )
        self._connection = connection
        storage = Storage(self._storage, LinkHosts(api_url, state_folder))
        self.files = FileCalls(connection, storage, state_folder)
        self.metadata = MetadataCalls(connection)
        self.ingestions = IngestionCalls(connection)
        self.datasets = DatasetCalls(connection, self.files)
        self.samples = SampleCalls(connection)
        self.instruments = InstrumentCalls(connection)
        self.projects = ProjectCalls(connection)
        self.account = AccountCalls(connection)
        self.graphs = GraphCalls(connection)
        self.deletions = DeletionCalls(connection)
        self.requests = RequestCalls(connection)

    def another(self, retry: RetryPolicy) -> CrucibleClient:
        """Return a client of the same service with another retry policy and its own connections."""
        return self._with_retry(retry)

    @property
    def api_url(self) -> str:
        """The address of the API, without a final slash."""
        return self._connection.api_url

    @contextmanager
    def repeating(self, for_s: float) -> Iterator[None]:
        """Repeat this thread's calls in the block for at most `for_s` seconds, whatever the policy; 0: never."""
        connection = self._connection
        policy = replace(connection.retry, attempts=math.inf, total_s=for_s, asked_total_s=for_s)
        token = connection.retry_within.set(policy)
        try:
            yield
        finally:
            connection.retry_within.reset(token)

    @property
    def is_embedded(self) -> bool:
        """Whether this is the embedded Crucible in a process of its own."""
        return self._connection.is_embedded

    @property
    def latency_s(self) -> float:
        """The shortest latency of recent answers; 0 before the first, and on this machine."""
        return self._connection.latency_s

    def at_once(self, *calls: Callable[[], Result]) -> list[Result]:
        """Make independent calls, concurrently if answers take long. Returns their results in order.

        All calls finish, even if one fails; then the error of the first failed call is raised.
        """
        if len(calls) < 2 or self.latency_s < FAR_S:
            return [call() for call in calls]
        return in_threads(lambda call: call(), calls)

    def request(
        self,
        method: str,
        path: str,
        *,
        params: JsonMapping | None = None,
        body: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Make a call that has no method here, and return its JSON. Raises errors as the methods do."""
        return self._connection.call(method, path, f"{method} {path}", params=params, body=body, headers=headers)

    def close(self) -> None:
        """Close all connections; no call can be made afterwards."""
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
    """Return the trusted certificates, which httpx reads from these places; that takes 20 ms or more."""
    return httpx.create_ssl_context()


def _connections(trust: ssl.SSLContext | bool, transport: httpx.BaseTransport | None) -> httpx.Client:
    if transport is not None:
        return DirectClient(transport)
    return httpx.Client(limits=LIMITS, verify=trust, timeout=None)  # noqa: S113  set per request


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
    """Sends requests to the embedded Crucible; `revive` restarts it if none listens, and returns whether one does."""

    def __init__(self, revive: Callable[[], bool]) -> None:
        self._revive = revive
        self._wire = httpx.HTTPTransport(verify=False, limits=LIMITS)  # it has no TLS

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Return the answer. Raises httpx.ConnectError if the server could not be restarted."""
        try:
            return self._wire.handle_request(request)
        except httpx.ConnectError:
            if not self._revive():
                raise
        return self._wire.handle_request(request)

    def close(self) -> None:
        """Close all connections."""
        self._wire.close()


class AccountCalls(Calls):
    """`client.account`: the owner of the key, and what the key may do."""

    def whoami(self) -> Account:
        """Return the account of the key."""
        return self._connection.record(Account, "GET", "/account", "read the account")

    def profile(self) -> Profile:
        """Return the owner of the account, with roles and capabilities."""
        return self._connection.record(Profile, "GET", "/account/profile", "read the profile")

    @functools.cached_property
    def creates_for_others(self) -> bool:
        """Whether the key may register datasets that belong to others."""
        return bool(self.profile().capabilities.get("can_create_for_others"))

    def create(self, username: str, unique_id: str | None = None) -> NewAccount:
        """Create the account of another user, with a key; only administrators may. Raises ConflictError for a name."""
        action = f"create the account {username}"
        body = {"username": username, "unique_id": unique_id}
        return self._connection.record(NewAccount, "POST", "/service_accounts", action, body=body)


class GraphCalls(Calls):
    """`client.graphs`: the lineage of datasets, as node-link JSON, which `LineageGraph.from_api` reads."""

    def get(self, mfid: str, recursive: bool = True) -> JsonObject:
        """Return `nodes` and `edges` (parent to child) around a dataset or sample, or only the direct neighbours."""
        action = f"read the graph of {mfid}"
        params = {"recursive": True} if recursive else None
        path = f"/entity_graph_cte/{segment(mfid, 'dataset or sample')}"
        answer = self._connection.get(path, action, params)
        if not isinstance(answer, dict) or not isinstance(answer.get("nodes"), list):
            raise ServerError(f"could not {action}: Crucible's answer is not a graph")
        edges = answer.get("edges", answer.get("links"))  # as older services call them
        if not isinstance(edges, list):
            raise ServerError(f"could not {action}: Crucible's answer is a graph without edges")
        return {**answer, "edges": edges}


class SampleCalls(LinkedCalls[Sample]):
    """`client.samples`: the measured samples, and which was made from which."""

    _collection, _kind, _model = "/samples", "sample", Sample

    def create(self, sample: SampleCreate | Mapping[str, object] | None = None, **fields: object) -> Sample:
        """Create a sample. With a `unique_id` of your own, the call is repeated if its answer is lost."""
        new = to_send(SampleCreate, fields if sample is None else sample)
        action = f"create sample {new.sample_name or ''}".rstrip()
        is_own = new.unique_id is not None
        return self._connection.record(Sample, "POST", "/samples", action, body=new.body(), repeatable=is_own)

    def get(self, mfid: str, *, include_metadata: bool = False, include_links: bool = False) -> Sample:
        """Return the sample; `scientific_metadata` and `links` are None unless they are included."""
        includes = {"metadata": include_metadata or None, "links": include_links or None, "datasets": False}
        params = {f"include_{name}": included for name, included in includes.items()}
        path = f"/samples/{segment(mfid, 'sample')}"
        return self._connection.record(Sample, "GET", path, f"read sample {mfid}", params=params)

    def update(self, mfid: str, **fields: object) -> Sample:
        """Change `fields` (sample_name, sample_type, description, timestamp) of the sample and return it."""
        path = f"/samples/{segment(mfid, 'sample')}"
        return self._connection.record(Sample, "PATCH", path, f"change sample {mfid}", body=fields)

    def _filters(self, filters: Mapping[str, object]) -> JsonObject:
        return {"include_datasets": False, **super()._filters(filters)}
