"""The one place that sends calls to Crucible's API: encoding, key, time limits, retries, errors."""

from __future__ import annotations

import logging
import random
import ssl
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx

from crucible_lineage.client.http.answers import error_of, json_of, read_whole
from crucible_lineage.client.http.retry import RetryPolicy, Tries, decide
from crucible_lineage.client.http.wire import Params, encoded, json_bytes
from crucible_lineage.errors import CertificateError, CrucibleError, InputError, ServerError, UnreachableError

__all__ = ["Connection", "Timeouts"]

REPEATABLE = frozenset({"GET", "PUT", "PATCH", "DELETE"})
NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
TOLD_FROM_S = 5.0  # chosen: a person who waits so long wants to know what for

TLS_WAY_OUT = (
    "waiting does not help: check that the API URL has the right scheme, host and port, that the certificate there is "
    "of this host and has not expired, and that SSL_CERT_FILE names who signed it if that is an authority of your own"
)

log = logging.getLogger(__name__)


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


def _attempt(number: int, elapsed_s: float, repeatable: bool, error: CrucibleError) -> Tries:
    return Tries(
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
