"""From an HTTP answer to the error that the caller gets, with what to do about it."""

from __future__ import annotations

import json
from typing import Any

import httpx

from crucible_lineage.client.http.retry import retry_after_s
from crucible_lineage.errors import (
    ConflictError,
    CrucibleError,
    ForbiddenError,
    NotFoundError,
    PreconditionError,
    RateLimitedError,
    RefusedError,
    ServerError,
    UnauthorizedError,
)

__all__ = ["error_of", "json_of", "read_whole"]

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
    404: "check the id, and that this key may see it",
    412: "read it again and repeat the change on what is there now",
    429: "wait before calling again",
}


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
