"""The one place that sends calls to Crucible's API: encoding, key, time limits, retries, errors, and pages of lists."""

from __future__ import annotations

import json
import logging
import random
import ssl
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx

from crucible_lineage.client.http.retry import RetryPolicy, RetryState, decide, retry_after_s
from crucible_lineage.client.http.wire import Params, encoded, json_bytes, parse
from crucible_lineage.client.models import ReceivedModel
from crucible_lineage.errors import (
    CertificateError,
    ConflictError,
    CrucibleError,
    ForbiddenError,
    InputError,
    NotFoundError,
    PreconditionError,
    RateLimitedError,
    RefusedError,
    ServerError,
    UnauthorizedError,
    UnreachableError,
)

REPEATABLE = frozenset({"GET", "PUT", "PATCH", "DELETE"})
NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
TOLD_FROM_S = 5.0  # chosen: a person who waits so long wants to know what for

TLS_WAY_OUT = (
    "waiting does not help: check that the API URL has the right scheme, host and port, that the certificate there is "
    "of this host and has not expired, and that SSL_CERT_FILE names who signed it if that is an authority of your own"
)

log = logging.getLogger(__name__)


MOST_BYTES = 256 << 20  # chosen: four times the metadata that an embedded Crucible gives in one answer

FRAMING = frozenset({"content-encoding", "content-length", "transfer-encoding"})  # of the body as it travelled
CLASSES: dict[int, type[CrucibleError]] = {
    401: UnauthorizedError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
    412: PreconditionError,
    429: RateLimitedError,
}
WAYS_OUT = {
    401: "check that the API key is set, complete and not expired",
    403: "ask the owner of the resource or project for access",
    404: "check the id, and whether it is visible to this key",
    412: "read the dataset again and repeat the change on its present state",
    429: "wait before calling again",
}


Record = TypeVar("Record", bound=ReceivedModel)
PAGE = 1000  # the largest page that the service gives


@dataclass(frozen=True)
class Timeouts:
    """Seconds to wait at most; the service's official client waits as long."""

    connect_s: float = 5.0
    read_s: float = 30.0
    complete_s: float = 120.0
    storage_connect_s: float = 10.0
    storage_read_s: float = 300.0


class Connection:
    """Sends calls with the key and returns their JSON. Thread-safe; holds the connections until `close`."""

    def __init__(
        self,
        api_url: str,
        api_key: str,
        *,
        timeouts: Timeouts,
        retry: RetryPolicy,
        http: httpx.Client,
        privilege_mode: str | None = None,
    ) -> None:
        self.api_url = _checked_url(api_url)
        self.timeouts = timeouts
        self.retry = retry
        self.retry_within: ContextVar[RetryPolicy | None] = ContextVar("retry", default=None)  # of the thread that asks
        self.sleep: Callable[[float], None] = time.sleep
        self._key = _checked_key(api_key)
        self._headers = {
            "Accept": "application/json",
            "User-Agent": "crucible-lineage",
            **_privilege(privilege_mode),
        }
        self._timeout = _extension(timeouts.connect_s, timeouts.read_s)
        self._http = http
        self._took: deque[float] = deque(maxlen=16)

    @property
    def latency_s(self) -> float:
        """Return the shortest latency of the recent answers, network and service together. 0 before the first."""
        return min(self._took, default=0.0)

    def get(self, path: str, what: str, *, mfid: str | None = None, params: Params | None = None) -> Any:
        """JSON of GET `path`."""
        return self.call("GET", path, what, mfid=mfid, params=params)

    def call(
        self,
        method: str,
        path: str,
        what: str,
        *,
        mfid: str | None = None,
        params: Params | None = None,
        body: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
        repeatable: bool | None = None,
        read_s: float | None = None,
        authorized: bool = True,
        is_final: Callable[[CrucibleError], bool] | None = None,
        look: Callable[[], object] | None = None,
        heard: Callable[[Mapping[str, str]], object] | None = None,
    ) -> Any:
        """JSON of the answer, None for an empty one; the matching CrucibleError for anything outside 2xx.

        `what` completes "could not ..." in error messages. `repeatable` says whether the call may be sent twice, by
        default for GET, PUT, PATCH and DELETE. `is_final` recognises a transient status that waiting will not cure.
        `look` makes a call repeatable that is not: asked before it is sent again after a lost answer, it gives the
        answer if the call had its effect, else None. `heard` is told the headers of the answer.
        """
        request = self._request(method, path, params, body, headers, read_s, authorized)
        may_repeat = look is not None or (method in REPEATABLE if repeatable is None else repeatable)
        started = time.monotonic()
        tries, counted = 0, 0
        in_doubt = False  # an earlier try may have had its effect without our hearing of it
        while True:
            tries += 1
            outcome = self._once(request, what, mfid)
            if not isinstance(outcome, CrucibleError):
                if heard is not None:
                    heard(outcome.headers)
                return json_of(outcome, what, mfid=mfid)
            if method == "DELETE" and in_doubt and outcome.status == 404:
                return None
            in_doubt = in_doubt or _is_in_doubt(outcome)
            counted += not outcome.retry_after_s
            elapsed_s = time.monotonic() - started
            policy = self.retry_within.get() or self.retry
            wait_s = decide(_attempt(counted, elapsed_s, may_repeat, outcome), policy)
            if wait_s is None or isinstance(outcome, CertificateError) or (is_final is not None and is_final(outcome)):
                raise self._given_up(outcome, tries, elapsed_s, in_doubt)
            if outcome.retry_after_s or wait_s >= TOLD_FROM_S:
                log.warning("%s; trying again in %.0f s", str(outcome).partition("\n")[0], wait_s)
            self.sleep(wait_s)
            if look is not None and in_doubt and (found := look()) is not None:
                return found

    def _given_up(self, error: CrucibleError, tries: int, elapsed_s: float, in_doubt: bool) -> CrucibleError:
        """The error, with how long it was tried, and whether the call may have had its effect."""
        told = [str(error)]
        policy = self.retry_within.get() or self.retry
        if error.retry_after_s and elapsed_s + error.retry_after_s > policy.asked_total_s:
            told.append(f"it asks to come back in {error.retry_after_s:g} s; one call waits at most "
                        f"{policy.asked_total_s:g} s for that")  # fmt: skip
        if tries > 1:
            told.append(f"tried {tries} times in {elapsed_s:.0f} s")
        if isinstance(error, UnreachableError):
            told.append(
                "whether the call took effect is not known" if in_doubt else "it was not reached, nothing was sent"
            )
        error.args = ("\n".join(told),)
        return error

    def _once(self, request: httpx.Request, what: str, mfid: str | None) -> httpx.Response | CrucibleError:
        """One try: the answer if it is 2xx, else the error to raise or to retry on."""
        sent = time.monotonic()
        try:
            response = read_whole(self._http.send(request, stream=True), what, mfid=mfid)
            self._took.append(time.monotonic() - sent)
        except ServerError as unread:
            return unread
        except httpx.TransportError as cause:
            said = f"could not {what}: no answer from {self.api_url} ({type(cause).__name__}: {cause})\n"
            if _is_of_tls(cause):
                error: UnreachableError = CertificateError(f"{said}{TLS_WAY_OUT}", mfid=mfid)
            else:
                error = UnreachableError(f"{said}check the network and the API URL", mfid=mfid)
            error.__cause__ = cause
            return error
        if response.is_success:
            return response
        return error_of(response, what, mfid=mfid, secret=self._key)

    def _request(
        self,
        method: str,
        path: str,
        params: Params | None,
        body: Mapping[str, object] | None,
        headers: Mapping[str, str] | None,
        read_s: float | None,
        authorized: bool,
    ) -> httpx.Request:
        """The request, built without httpx's merging of client defaults, which costs a tenth of a call."""
        query = encoded(params) if params else ""
        sent = dict(self._headers)
        if authorized:
            sent["Authorization"] = f"Bearer {self._key}"
        if body is not None:
            sent["Content-Type"] = "application/json"
        if headers:
            sent.update(headers)
        timeout = self._timeout if read_s is None else _extension(self.timeouts.connect_s, read_s)
        return httpx.Request(
            method,
            f"{self.api_url}{path}?{query}" if query else self.api_url + path,
            headers=sent,
            content=None if body is None else json_bytes(body),
            extensions={"timeout": timeout},
        )


def _is_of_tls(error: httpx.TransportError) -> bool:
    """Return whether there is no secure connection, as the certificate or what answers there is not as expected.

    A connection that was cut is another matter.
    """
    found: BaseException | None = error
    for _ in range(2):  # of httpx, of httpcore, of the system
        found = found and (found.__cause__ or found.__context__)
    cut = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)
    return isinstance(found, ssl.SSLError) and not isinstance(found, cut)


def _is_reached(error: CrucibleError) -> bool:
    return not isinstance(error.__cause__, NEVER_SENT)


def _is_in_doubt(error: CrucibleError) -> bool:
    """True if the call may have had its effect all the same: no answer, or one of something on the way."""
    return _is_reached(error) and error.status in (None, 502, 503, 504)


def _attempt(number: int, elapsed_s: float, repeatable: bool, error: CrucibleError) -> RetryState:
    return RetryState(
        number=number,
        elapsed_s=elapsed_s,
        repeatable=repeatable,
        status=error.status,
        reached=_is_reached(error),
        retry_after_s=error.retry_after_s,
        jitter=random.random(),  # noqa: S311  spreads retries, guards nothing
    )


def _extension(connect_s: float, read_s: float) -> dict[str, float]:
    return {"connect": connect_s, "read": read_s, "write": read_s, "pool": read_s}


def _privilege(mode: str | None) -> dict[str, str]:
    if mode not in (None, "normal", "elevated"):
        raise InputError(f"privilege_mode is {mode!r}; it is normal or elevated")
    return {} if mode is None else {"Crucible-Privilege-Mode": mode}


def _checked_url(api_url: str) -> str:
    parts = urlsplit(api_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(f"not an API URL: {api_url!r}\nit looks like https://crucible.lbl.gov/api/v3")
    if parts.username or parts.password:
        raise InputError("the API URL holds a user name or password; give the API key apart")
    return api_url.rstrip("/")


def _checked_key(api_key: str) -> str:
    if not api_key or not api_key.isascii() or not api_key.isprintable() or " " in api_key:
        raise InputError("the API key is empty or holds characters that no key has; set CRUCIBLE_API_KEY")
    return api_key


def read_whole(response: httpx.Response, what: str, *, mfid: str | None = None) -> httpx.Response:
    """The answer with its body, unpacked; ServerError as soon as there is more of it than any call is answered with."""
    length = response.headers.get("content-length", "")
    if length.isdecimal() and int(length) <= MOST_BYTES and "content-encoding" not in response.headers:
        response.read()  # nothing that comes after so many bytes belongs to it
        return response
    blocks, size = [], 0
    try:
        for block in response.iter_bytes():
            size += len(block)
            if size > MOST_BYTES:
                raise ServerError(
                    f"could not {what}: the answer has more than {MOST_BYTES >> 20} MB; it was not read further\n"
                    "check the API URL, and what the service has in its log",
                    status=response.status_code,
                    mfid=mfid,
                )
            blocks.append(block)
    finally:
        response.close()
    headers = [pair for pair in response.headers.multi_items() if pair[0] not in FRAMING]
    return httpx.Response(response.status_code, headers=headers, content=b"".join(blocks), request=response.request)


def error_of(response: httpx.Response, what: str, *, mfid: str | None = None, secret: str = "") -> CrucibleError:
    """The error for an answer outside 2xx. `what` completes "could not ..."; `secret` is blotted out."""
    status = response.status_code
    detail = _detail(response)
    code = detail.get("code") if isinstance(detail, dict) else None
    lines = [f"could not {what}: Crucible answered {status} {_text(detail) or response.reason_phrase}".rstrip()]
    if status in WAYS_OUT:
        lines.append(WAYS_OUT[status])
    message = "\n".join(lines)
    return _class_of(status)(
        message.replace(secret, "***") if secret else message,
        status=status,
        detail=detail,
        code=code if isinstance(code, str) else None,
        mfid=mfid,
        retry_after_s=retry_after_s(response.headers.get("retry-after")),
    )


def json_of(response: httpx.Response, what: str, *, mfid: str | None = None) -> Any:
    """The JSON of a 2xx answer; None if it has no body. ServerError if it is not JSON."""
    if not response.content:
        return None
    try:
        return json.loads(response.content)
    except RecursionError as error:
        raise ServerError(
            f"could not {what}: the JSON that Crucible answered is nested too deeply to be read",
            status=response.status_code,
            mfid=mfid,
        ) from error
    except ValueError as error:
        raise ServerError(
            f"could not {what}: Crucible answered {response.status_code} with something that is not JSON\n"
            "check that the API URL ends in /api/v3 and is not that of a web page",
            status=response.status_code,
            mfid=mfid,
        ) from error


def _class_of(status: int) -> type[CrucibleError]:
    return CLASSES.get(status, RefusedError if 400 <= status < 500 else ServerError)


def _detail(response: httpx.Response) -> Any:
    """Return the reason that the service gives: `detail`, else `message`, else `error`; None without one."""
    try:
        body = json.loads(response.content)
    except (ValueError, RecursionError):
        return None
    if not isinstance(body, dict):
        return None
    return next((body[key] for key in ("detail", "message", "error") if body.get(key) is not None), None)


def _text(detail: object) -> str:
    """One line of it: a text, the message of a coded object, or the items of a validation list."""
    if isinstance(detail, dict):
        return str(detail.get("message") or detail.get("code") or "")
    if isinstance(detail, list):
        return "; ".join(_item(item) for item in detail)
    return "" if detail is None else str(detail)


def _item(item: object) -> str:
    if not isinstance(item, dict):
        return str(item)
    place = ".".join(str(part) for part in item.get("loc", ()) if part not in ("body", "query", "path"))
    return f"{place}: {item.get('msg', '')}".strip(": ")


def pages(
    connection: Connection, path: str, model: type[Record], what: str, params: Params, limit: int | None = None
) -> Iterator[Record]:
    """The records of a list one by one, page after page, `limit` of them or all."""
    if limit is not None and limit < 0:
        raise InputError(f"could not {what}: the limit is {limit}; give a number from 0 on, or None for all")
    items = _items(connection, path, what, params, PAGE if limit is None else min(limit, PAGE))
    return (parse(model, item, what) for item in islice(items, limit))


def count_of(connection: Connection, path: str, what: str, params: Params) -> int:
    """Count the records of the list."""
    total = _page(connection, path, what, {**params, "limit": 1}).get("total")
    if not isinstance(total, int):
        raise ServerError(f"could not {what}: Crucible's answer has no total")
    return total


def _items(connection: Connection, path: str, what: str, params: Params, size: int) -> Iterator[Any]:
    """All items. A page names the next one by cursor; or it has a total, and the next one is asked for by offset."""
    if size == 0:
        return
    position: dict[str, Any] = {}
    offset = 0
    while True:
        page = _page(connection, path, what, {**params, "limit": size, **position})
        items, cursor, total = page.pop("items"), page.get("next_cursor"), page.get("total")
        if not items:
            return
        offset += len(items)
        yield from items
        del items  # before the next page comes
        if cursor:
            position = {"cursor": cursor}
        elif "cursor" not in position and isinstance(total, int) and offset < total:
            position = {"offset": offset}
        else:
            return


def _page(connection: Connection, path: str, what: str, params: Params) -> dict[str, Any]:
    page = connection.get(path, what, params=params)
    if not isinstance(page, dict) or not isinstance(page.get("items"), list):
        raise ServerError(f"could not {what}: Crucible's answer is not a page of items")
    return page
