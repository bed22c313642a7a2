"""The client: one object with a key, a pool of connections, and the calls of the service by subject."""

from __future__ import annotations

import functools
import math
import os
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, Unpack
from urllib.request import getproxies

import httpx

from crucible_lineage.client.dataset.contents import MetadataCalls
from crucible_lineage.client.dataset.datasets import DatasetCalls, DeletionCalls, LinkCalls
from crucible_lineage.client.dataset.files import FileCalls
from crucible_lineage.client.filters import SampleFilters, sent_filters
from crucible_lineage.client.http.concurrent import ConcurrentCalls
from crucible_lineage.client.http.connection import Connection, Timeouts, count_of, pages
from crucible_lineage.client.http.pool import DirectClient, PooledTransport
from crucible_lineage.client.http.retry import RetryPolicy
from crucible_lineage.client.http.wire import parse, parse_all, quoted, segment, to_send
from crucible_lineage.client.ingestions import IngestionCalls
from crucible_lineage.client.models import Account, Health, Profile, Sample, SampleCreate
from crucible_lineage.client.official import OfficialNames
from crucible_lineage.client.projects import InstrumentCalls, ProjectCalls
from crucible_lineage.client.transfer.outgoing import UploadMemory
from crucible_lineage.client.transfer.storage import LinkHosts, SignedUrlTransport, Storage
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
        self._storage = _connections(trust, SignedUrlTransport(transport) if transport else None)
        connection = Connection(
            api_url, api_key, timeouts=timeout, retry=retry, http=self._api, privilege_mode=privilege_mode
        )
        self._connection = connection
        is_near = getattr(transport, "is_near", False)
        self._latency: Callable[[], float] = lambda: 0.0 if is_near else connection.latency_s
        self._at_once = ConcurrentCalls(self._latency)
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
        """Return the shortest latency of the recent answers; 0 before the first, and on this machine."""
        return self._latency()

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
        one = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=KEEPALIVE_S)
        new = functools.partial(httpx.HTTPTransport, verify=trust, limits=one)
        transport = PooledTransport(new, most=MOST_CONNECTIONS, keepalive_s=KEEPALIVE_S)
    if transport is not None:
        return DirectClient(transport)
    most = MOST_CONNECTIONS
    limits = httpx.Limits(max_connections=most, max_keepalive_connections=most, keepalive_expiry=KEEPALIVE_S)
    return httpx.Client(limits=limits, verify=trust, timeout=None)  # noqa: S113  set per request


class AccountCalls(OfficialNames):
    """`client.account`: who the key belongs to, and what it may do."""

    subject = "account"

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def whoami(self) -> Account:
        """The account behind the key."""
        return parse(Account, self._connection.get("/account", "read the account"), "read the account")

    def profile(self) -> Profile:
        """The account's owner, with roles and capabilities."""
        return parse(Profile, self._connection.get("/account/profile", "read the profile"), "read the profile")


class GraphCalls(OfficialNames):
    """`client.graphs`: what descends from what, as node-link JSON; `LineageGraph.from_api` reads it."""

    subject = "graphs"

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def get(self, mfid: str, recursive: bool = True) -> dict[str, Any]:
        """`nodes` and `edges` around a dataset or sample: all that hangs together, or only the direct neighbours.

        An edge's source is the parent, its target the child.
        """
        what = f"read the graph of {mfid}"
        params = {"recursive": True} if recursive else None
        path = f"/entity_graph_cte/{segment(mfid, 'dataset or sample')}"
        return _node_link(self._connection.get(path, what, mfid=mfid, params=params), what)

    def project(self, project_id: str) -> dict[str, Any]:
        """`nodes` and `edges` of all datasets and samples of a project."""
        what = f"read the graph of project {project_id}"
        return _node_link(self._connection.get(f"/project_graph/{quoted(project_id)}", what), what)


def _node_link(answer: object, what: str) -> dict[str, Any]:
    """The graph with `edges`, which older services call `links`."""
    if not isinstance(answer, dict) or not isinstance(answer.get("nodes"), list):
        raise ServerError(f"could not {what}: Crucible's answer is not a graph")
    edges = answer.get("edges", answer.get("links"))
    if not isinstance(edges, list):
        raise ServerError(f"could not {what}: Crucible's answer is a graph without edges")
    return {**answer, "edges": edges}


class SampleCalls(OfficialNames):
    """`client.samples`: what is measured, and which sample was made from which."""

    subject = "samples"

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._links = LinkCalls(connection, "/samples", "sample", Sample)

    def create(self, sample: SampleCreate | Mapping[str, object] | None = None, **fields: object) -> Sample:
        """The new sample. With a `unique_id` of your own a lost answer is repeated; without one it is an error."""
        new = to_send(SampleCreate, fields if sample is None else sample)
        what = f"create sample {new.sample_name or ''}".rstrip()
        answer = self._connection.call(
            "POST", "/samples", what, mfid=new.unique_id, body=new.body(), repeatable=new.unique_id is not None
        )
        return parse(Sample, answer, what)

    def get(self, mfid: str, *, include_metadata: bool = False, include_links: bool = False) -> Sample:
        """The sample; `scientific_metadata` and `links` are None unless they are asked for."""
        what = f"read sample {mfid}"
        params = {
            "include_metadata": include_metadata or None,
            "include_links": include_links or None,
            "include_datasets": False,
        }
        answer = self._connection.get(f"/samples/{segment(mfid, 'sample')}", what, mfid=mfid, params=params)
        return parse(Sample, answer, what)

    def list(self, *, limit: int | None = None, **filters: Unpack[SampleFilters]) -> list[Sample]:
        """Samples that fit all filters, newest first, all or `limit` of them."""
        return list(self.iter(limit=limit, **filters))

    def iter(self, *, limit: int | None = None, **filters: Unpack[SampleFilters]) -> Iterator[Sample]:
        """The same, page by page as they are taken."""
        params = {"include_datasets": False, **sent_filters(filters, SampleFilters)}
        return pages(self._connection, "/samples", Sample, "list samples", params, limit)

    def count(self, **filters: Unpack[SampleFilters]) -> int:
        """Count the samples that match all filters."""
        return count_of(self._connection, "/samples", "count samples", sent_filters(filters, SampleFilters))

    def search(self, q: str, *, limit: int = 20, project_id: str | None = None) -> Sequence[Sample]:
        """Samples whose name is like `q` (3 letters or more); best first, at most 50."""
        what = f"search samples for {q!r}"
        params = {"q": q, "limit": limit, "project_id": project_id}
        return parse_all(Sample, self._connection.get("/samples/search", what, params=params), what)

    def update(self, mfid: str, **fields: object) -> Sample:
        """The sample with `fields` (sample_name, sample_type, description, timestamp) changed."""
        what = f"change sample {mfid}"
        path = f"/samples/{segment(mfid, 'sample')}"
        return parse(Sample, self._connection.call("PATCH", path, what, mfid=mfid, body=fields), what)

    def link_parent_child(self, parent_id: str, child_id: str, relationship_type: str | None = None) -> None:
        """The child hangs below the parent; a relationship that is given replaces a stored one."""
        self._links.link(parent_id, child_id, relationship_type)

    def unlink(self, parent_id: str, child_id: str) -> None:
        """The link is gone."""
        self._links.unlink(parent_id, child_id)

    def list_parents(self, mfid: str, *, limit: int | None = None) -> Sequence[Sample]:
        """The samples that this one was made from."""
        return self._links.related(mfid, "parents", {}, limit)

    def list_children(self, mfid: str, *, limit: int | None = None) -> Sequence[Sample]:
        """The samples that were made from this one."""
        return self._links.related(mfid, "children", {}, limit)
