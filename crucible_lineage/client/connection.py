"""The only module that sends calls to Crucible's API: encoding, key, timeouts, retries, errors, and pages of lists."""

from __future__ import annotations

import json
import logging
import random
import re
import ssl
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from itertools import islice
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx

from crucible_lineage.client.models import ReceivedModel
from crucible_lineage.client.wire import Params, json_bytes, parse, parse_all
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
from crucible_lineage.ids import is_mfid
from crucible_lineage.json_types import JsonObject
from crucible_lineage.settings import valid_key
from crucible_lineage.text.masking import learn
from crucible_lineage.text.times import utc

REPEATABLE = frozenset({"GET", "PUT", "PATCH", "DELETE"})
PAGE_TRIES = 3  # chosen: enough for a gateway's hiccup; a wrong address is reported within two seconds
NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
WARN_FROM_S = 5.0  # chosen: a longer wait needs an explanation

TLS_HINT = (
    "waiting does not help: check that the API URL has the right scheme, host and port, that the certificate is for "
    "this host and has not expired, and that SSL_CERT_FILE names its authority if that is one of your own"
)

log = logging.getLogger(__name__)

MAX_BYTES = 256 << 20  # chosen: four times the metadata that an embedded Crucible sends in one answer

FRAMING = frozenset({"content-encoding", "content-length", "transfer-encoding"})  # of the body as it was sent
ERROR_CLASSES: dict[int, type[CrucibleError]] = {
    401: UnauthorizedError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
    412: PreconditionError,
    429: RateLimitedError,
}
HINTS = {
    401: "check that the API key is set, complete and not expired",
    403: "ask the owner of the resource or project for access",
    404: "check the id, and whether it is visible to this key",
    412: "read the dataset again and repeat the change on its current state",
    422: "correct the names and values above",
    429: "wait before calling again",
}

Record = TypeVar("Record", bound=ReceivedModel)
PAGE = 1000  # the largest page of the service


# The longest times to wait; the official client waits as long.
CONNECT_S, READ_S, COMPLETE_S = 5.0, 30.0, 120.0
STORAGE_CONNECT_S, STORAGE_READ_S = 10.0, 300.0


class Connection:
    """Sends calls with the key and returns their JSON. Thread-safe; keeps its connections until `close`."""

    def __init__(
        self,
        api_url: str,
        api_key: str,
        *,
        retry: RetryPolicy,
        http: httpx.Client,
        privilege_mode: str | None = None,
        is_embedded: bool = False,
    ) -> None:
        parts = urlsplit(api_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError(f"not an API URL: {api_url!r}\nit looks like https://crucible.lbl.gov/api/v3")
        if parts.username or parts.password:
            raise InputError("the API URL contains a user name or password; pass the API key separately")
        self.api_url = api_url.rstrip("/")
        self.is_embedded = is_embedded  # slow answers mean that the machine is busy, and more threads would not help
        self.retry = retry
        self.retry_within: ContextVar[RetryPolicy | None] = ContextVar("retry", default=None)  # of the calling thread
        self.sleep: Callable[[float], None] = time.sleep
        if privilege_mode not in (None, "normal", "elevated"):
            raise InputError(f"privilege_mode is {privilege_mode!r}; it is normal or elevated")
        self._privilege = {"Crucible-Privilege-Mode": privilege_mode} if privilege_mode else {}
        self._key = valid_key(api_key)
        learn([self._key])
        self._http = http
        self._latencies: deque[float] = deque(maxlen=16)
        self._has_answered = False  # in JSON

    @property
    def latency_s(self) -> float:
        """The shortest latency of recent answers, network and service together; 0 before the first, and embedded."""
        return 0.0 if self.is_embedded else min(self._latencies, default=0.0)

    @property
    def policy(self) -> RetryPolicy:
        """How long calls of this thread are repeated."""
        return self.retry_within.get() or self.retry

    def wait(self, wait_s: float, error: CrucibleError) -> None:
        """Wait before a call is repeated after this error, and log a wait that is long or asked for."""
        if error.retry_after_s or wait_s >= WARN_FROM_S:
            log.warning("%s; trying again in %.0f s", str(error).partition("\n")[0], wait_s)
        self.sleep(wait_s)

    def get(self, path: str, action: str, params: Params | None = None) -> Any:
        """Return the JSON of GET `path`."""
        return self.call("GET", path, action, params=params)

    def record(self, model: type[Record], method: str, path: str, action: str, **options: Any) -> Record:
        """Return the record in the answer. Takes the options of `call`."""
        return parse(model, self.call(method, path, action, **options), action)

    def records(self, model: type[Record], path: str, action: str, **options: Any) -> list[Record]:
        """Return the records in the answer of GET `path`. Takes the options of `call`."""
        return parse_all(model, self.call("GET", path, action, **options), action)

    def call(
        self,
        method: str,
        path: str,
        action: str,
        *,
        mfid: str | None = None,
        params: Params | None = None,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        repeatable: bool | None = None,
        read_s: float | None = None,
        find_effect: Callable[[], object] | None = None,
        on_headers: Callable[[Mapping[str, str]], object] | None = None,
    ) -> Any:
        """Return the JSON of the answer, None for an empty one. Raises the matching CrucibleError outside 2xx.

        `action` completes "could not ..." in error messages. `repeatable` says whether the call may be sent twice, by
        default for GET, PUT, PATCH and DELETE. `find_effect` makes any call repeatable: after a lost answer, and before
        the call is repeated, it returns the answer if the call took effect, else None. `on_headers` gets the headers of
        the answer. Errors have `mfid`, by default the first in the path, or that of the record in the body.
        """
        request = self._request(method, path, params, body, headers, read_s)
        is_repeatable = find_effect is not None or (method in REPEATABLE if repeatable is None else repeatable)
        started = time.monotonic()
        tries, counted_tries = 0, 0
        in_doubt = False  # an earlier try may have taken effect although its answer was lost
        while True:
            tries += 1
            try:
                answer, answer_headers = self._once(request, action)
            except CrucibleError as error:
                if method == "DELETE" and in_doubt and error.status == 404:
                    return None
                in_doubt = in_doubt or (_is_reached(error) and error.status in (None, 502, 503, 504))  # of a gateway
                counted_tries += not error.retry_after_s
                elapsed_s = time.monotonic() - started
                wait_s = self.policy.wait_s(counted_tries, elapsed_s, error.retry_after_s)
                if wait_s is None or self._is_hopeless(error, tries) or not may_repeat(error, is_repeatable):
                    error.mfid = mfid or next(filter(is_mfid, path.split("/")), (body or {}).get("unique_id"))
                    self._explain(error, tries, elapsed_s, in_doubt)
                    raise
                self.wait(wait_s, error)
            else:
                if on_headers is not None:
                    on_headers(answer_headers)
                return answer
            if find_effect is not None and in_doubt and (effect := find_effect()) is not None:
                return effect

    def _is_hopeless(self, error: CrucibleError, tries: int) -> bool:
        """Return whether waiting cures nothing: no secure connection, no signed uploads, or answers of others."""
        is_page = isinstance(error, UnreachableError) and not isinstance(error.__cause__, httpx.TransportError)
        is_elsewhere = is_page and not self._has_answered and tries >= PAGE_TRIES
        return is_elsewhere or isinstance(error, CertificateError) or is_switched_off(error)

    def _explain(self, error: CrucibleError, tries: int, elapsed_s: float, in_doubt: bool) -> None:
        """Extend the message of the error with how long the call was tried, and whether it may have taken effect."""
        lines = [str(error)]
        if error.retry_after_s and elapsed_s + error.retry_after_s > self.policy.asked_total_s:
            lines.append(f"it asks to come back in {error.retry_after_s:g} s; one call waits at most "
                        f"{self.policy.asked_total_s:g} s for that")  # fmt: skip
        if tries > 1:
            lines.append(f"tried {tries} times in {elapsed_s:.0f} s")
        if isinstance(error, UnreachableError):
            lines.append(
                "whether the call took effect is not known" if in_doubt else "it was not reached, nothing was sent"
            )
        error.args = ("\n".join(lines),)

    def _once(self, request: httpx.Request, action: str) -> tuple[Any, Mapping[str, str]]:
        """Send the call once; return the JSON and headers of an answer in 2xx. Raises the matching CrucibleError."""
        started = time.monotonic()
        try:
            response = read_answer(self._http.send(request, stream=True), action)
        except httpx.TransportError as cause:
            is_insecure = _is_tls_failure(cause)
            error_class = CertificateError if is_insecure else UnreachableError
            raise error_class(
                f"could not {action}: no answer from {self.api_url} ({type(cause).__name__}: {cause})\n"
                f"{TLS_HINT if is_insecure else 'check the network and the API URL'}"
            ) from cause
        self._latencies.append(time.monotonic() - started)
        # Where Crucible would say what exists, from which conclusions are drawn, a web page is a lost answer.
        is_page = bool(response.content) and response.headers.get("content-type", "").startswith("text/html")
        if not response.is_success and not (is_page and response.status_code in (404, 409, 412)):
            raise error_of(response, action)
        answer = json_of(response, action)
        self._has_answered = True
        return answer, response.headers

    def _request(
        self,
        method: str,
        path: str,
        params: Params | None,
        body: Mapping[str, object] | None,
        headers: Mapping[str, str] | None,
        read_s: float | None,
    ) -> httpx.Request:
        """Build the request without httpx's merging of client defaults, which costs a tenth of a call."""
        sent = {name: value for name, value in (params or {}).items() if value is not None}
        query = f"?{httpx.QueryParams(sent)}" if sent else ""  # type: ignore[arg-type]  # any value, as text
        all_headers = {
            "Accept": "application/json",
            "User-Agent": "crucible-lineage",
            "Authorization": f"Bearer {self._key}",
            **self._privilege,
        }
        if body is not None:
            all_headers["Content-Type"] = "application/json"
        return httpx.Request(
            method,
            f"{self.api_url}{path}{query}",
            headers=all_headers | dict(headers or {}),
            content=None if body is None else json_bytes(body),
            extensions={"timeout": timeout_extension(CONNECT_S, read_s or READ_S)},
        )


class Calls:
    """Base of the calls of one subject."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection


def _is_tls_failure(error: httpx.TransportError) -> bool:
    """Return whether no secure connection was possible: the certificate or the server is not as expected.

    A closed connection is a different failure.
    """
    cause: BaseException | None = error
    for _ in range(2):  # from httpx to httpcore to the system
        cause = cause and (cause.__cause__ or cause.__context__)
    closed = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)
    return isinstance(cause, ssl.SSLError) and not isinstance(cause, closed)


def is_switched_off(error: CrucibleError) -> bool:
    """Return whether the service refuses all signed uploads: 503 with these words."""
    return error.status == 503 and "multipart uploads are disabled" in str(error).lower()


def _is_reached(error: CrucibleError) -> bool:
    return not isinstance(error.__cause__, NEVER_SENT)


def timeout_extension(connect_s: float, read_s: float) -> dict[str, float]:
    """Return the timeouts of one request, as httpx's extension."""
    return {"connect": connect_s, "read": read_s, "write": read_s, "pool": read_s}


def read_answer(response: httpx.Response, action: str) -> httpx.Response:
    """Read and decompress the body of an answer. Raises ServerError as soon as it exceeds `MAX_BYTES`."""
    length = response.headers.get("content-length", "")
    if length.isdecimal() and int(length) <= MAX_BYTES and "content-encoding" not in response.headers:
        response.read()  # later bytes do not belong to it
        return response
    blocks, size = [], 0
    try:
        for block in response.iter_bytes():
            size += len(block)
            if size > MAX_BYTES:
                raise ServerError(
                    f"could not {action}: the answer has more than {MAX_BYTES >> 20} MB; it was not read further\n"
                    "check the API URL and the service's log",
                    status=response.status_code,
                )
            blocks.append(block)
    finally:
        response.close()
    headers = [pair for pair in response.headers.multi_items() if pair[0] not in FRAMING]
    return httpx.Response(response.status_code, headers=headers, content=b"".join(blocks), request=response.request)


def error_of(response: httpx.Response, action: str) -> CrucibleError:
    """Return the error for an answer outside 2xx. `action` completes "could not ..."."""
    status = response.status_code
    try:
        body = json.loads(response.content)
    except (ValueError, RecursionError):
        body = None
    reasons = (body.get(key) for key in ("detail", "message", "error")) if isinstance(body, dict) else ()
    detail = next((reason for reason in reasons if reason is not None), None)
    code = detail.get("code") if isinstance(detail, dict) else None
    lines = [f"could not {action}: Crucible answered {status} {_text(detail) or response.reason_phrase}".rstrip()]
    if status in HINTS:
        lines.append(HINTS[status])
    return error_class_of(status)(
        "\n".join(lines),
        status=status,
        detail=detail,
        code=code if isinstance(code, str) else None,
        retry_after_s=retry_after_s(response.headers.get("retry-after")),
    )


def error_class_of(status: int) -> type[CrucibleError]:
    """Return the class of the error for a status outside 2xx."""
    return ERROR_CLASSES.get(status, RefusedError if 400 <= status < 500 else ServerError)


def _text(detail: object) -> str:
    """Return the reason as one line: its text, the message of a coded object, or the items of a validation list."""
    if isinstance(detail, dict):
        return str(detail.get("message") or detail.get("code") or "")
    if not isinstance(detail, list):
        return "" if detail is None else str(detail)
    lines = []
    for item in detail:
        if isinstance(item, dict):
            location = ".".join(str(part) for part in item.get("loc", ()) if part not in ("body", "query", "path"))
            item = f"{location}: {item.get('msg', '')}".strip(": ")
        lines.append(str(item))
    return "; ".join(lines)


def json_of(response: httpx.Response, action: str) -> Any:
    """Return the JSON of an answer, None without a body.

    Raises UnreachableError if it is not JSON: something between here and Crucible answered, and Crucible's own answer
    is lost.
    """
    if not response.content:
        return None
    try:
        return json.loads(response.content)
    except RecursionError as error:
        raise ServerError(
            f"could not {action}: the JSON that Crucible answered is nested too deeply to be read",
            status=response.status_code,
        ) from error
    except ValueError as error:
        raise UnreachableError(
            f"could not {action}: {response.url.host} answered {response.status_code} with something that is not JSON\n"
            "check that the API URL ends in /api/v3 and is not that of a web page",
        ) from error


def pages(
    connection: Connection, path: str, model: type[Record], action: str, params: Params, limit: int | None = None
) -> Iterator[Record]:
    """Yield the records of a list, `limit` of them or all; each page is read when it is needed."""
    if limit is not None and limit < 0:
        raise InputError(f"could not {action}: the limit is {limit}; give 0 or more, or None for all")
    items = _items(connection, path, action, params, PAGE if limit is None else min(limit, PAGE))
    return (parse(model, item, action) for item in islice(items, limit))


def _items(connection: Connection, path: str, action: str, params: Params, size: int) -> Iterator[Any]:
    """Yield all items. A page has a cursor to the next one, or else a total, and the next one is read by offset."""
    if size == 0:
        return
    position: JsonObject = {}
    offset = 0
    while True:
        page = page_of(connection, path, action, {**params, "limit": size, **position})
        items, cursor, total = page.pop("items"), page.get("next_cursor"), page.get("total")
        if not items:
            return
        offset += len(items)
        yield from items
        del items  # frees memory before the next page is read
        if cursor:
            position = {"cursor": cursor}
        elif "cursor" not in position and isinstance(total, int) and offset < total:
            position = {"offset": offset}
        else:
            return


def page_of(connection: Connection, path: str, action: str, params: Params) -> JsonObject:
    """Return one page of a list. Raises ServerError if the answer is none."""
    page = connection.get(path, action, params)
    if not isinstance(page, dict) or not isinstance(page.get("items"), list):
        raise ServerError(f"could not {action}: Crucible's answer is not a page of items")
    return page


TRANSIENT = frozenset({429, 502, 503, 504})  # the statuses that the official client repeats


@dataclass(frozen=True)
class RetryPolicy:
    """How long a call is repeated. The defaults outlast a restart of the service, not an outage.

    A call is given up after `total_s` or `attempts` tries; the last try starts when the time is over. If the service
    itself names a time (Retry-After, a second or more), the next try waits for it. Such tries are not counted, and
    continue for `asked_total_s`; a longer wait is not started, and the error says so.
    """

    attempts: float = 20
    total_s: float = 90.0
    first_wait_s: float = 0.5
    longest_wait_s: float = 20.0
    asked_total_s: float = 300.0

    def wait_s(self, number: int, elapsed_s: float, asked_s: float | None, jitter: float | None = None) -> float | None:
        """Return the seconds to wait after `number` counted tries, or None to give up.

        Waits double, and the upper half of each is random, by `jitter` from 0 to 1. The service may have `asked_s`.
        """
        if self.attempts <= 1:
            return None
        if asked_s:  # zero is no information
            return asked_s if elapsed_s + asked_s <= self.asked_total_s else None
        left_s = self.total_s - elapsed_s
        if number >= self.attempts or left_s <= 0:
            return None
        if jitter is None:  # leaves the sequence that a program has seeded
            jitter = random.SystemRandom().random()
        ceiling: float = min(self.longest_wait_s, self.first_wait_s * 2.0 ** min(number - 1, 30))
        return min(ceiling * (0.5 + jitter / 2), left_s)


def may_repeat(error: CrucibleError, repeatable: bool) -> bool:
    """Return whether a call may be sent again after this error: a transient one, and it is repeatable or had no effect.

    It certainly had none if the service was not reached, or answered 429.
    """
    if error.status is None:
        return repeatable or not _is_reached(error)
    return error.status in TRANSIENT and (repeatable or error.status == 429)


def retry_after_s(header: str | None, now: datetime | None = None) -> float | None:
    """Parse a Retry-After header, a number or a date, into seconds from now; None if it has neither."""
    if not header:
        return None
    if re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", header.strip()):
        return max(0.0, float(header))
    try:
        moment = utc(parsedate_to_datetime(header))
    except ValueError:
        return None
    return max(0.0, (moment - (now or datetime.now(UTC))).total_seconds())
