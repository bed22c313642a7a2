"""Secrets blotted out of what is kept and shown, in every spelling in which they come back."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterable
from urllib.parse import quote, quote_plus

__all__ = ["BLOT", "Blotter", "own_secrets"]

BLOT = "***"
LEAST_ENCODED = 4  # characters; what is shorter has encodings that are everywhere


# Ours and Prefect's: what a step may find in its environment and has no business to show.
_OWN = ("CRUCIBLE_API_KEY", "PREFECT_API_KEY", "PREFECT_API_AUTH_STRING", "PREFECT_SERVER_API_AUTH_STRING")


def own_secrets(*keys: str | None) -> list[str]:
    """Return these keys, and those in the environment that give access to Crucible and Prefect."""
    return [key for key in (*keys, *(os.environ.get(name) for name in _OWN)) if key]


class Blotter:
    """Knows the spellings of some secrets: as they are, in base64, quoted as in addresses, in JSON, in hexadecimal."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        spellings = {form for secret in set(secrets) if secret for form in _spellings(secret)}
        texts = sorted(spellings, key=len, reverse=True)
        self._text = re.compile("|".join(map(re.escape, texts))) if texts else None
        self._encoded = tuple(text.encode(errors="surrogatepass") for text in texts)
        self._bytes = re.compile(b"|".join(map(re.escape, self._encoded))) if texts else None

    def __bool__(self) -> bool:
        return self._text is not None

    def text(self, text: str) -> str:
        """The text without any of the secrets."""
        return self._text.sub(BLOT, text) if self._text else text

    def data(self, data: bytes, *, last: bool = True) -> tuple[bytes, bytes]:
        """The bytes without any of the secrets, and the rest that has to stand before what comes next.

        That is empty for the `last` ones; else it is what may be the beginning of a secret.
        """
        if self._bytes is None:
            return data, b""
        blotted = self._bytes.sub(BLOT.encode(), data)
        if last:
            return blotted, b""
        keep = next((size for size in range(self._most(blotted), 0, -1) if self._may_begin(blotted[-size:])), 0)
        return blotted[: len(blotted) - keep], blotted[len(blotted) - keep :]

    def _most(self, data: bytes) -> int:
        return min(len(data), max(map(len, self._encoded)) - 1)

    def _may_begin(self, end: bytes) -> bool:
        return any(spelling.startswith(end) for spelling in self._encoded)


def _spellings(secret: str) -> Iterable[str]:
    yield secret
    if len(secret) < LEAST_ENCODED:
        return
    yield from (quote(secret, safe=""), quote(secret), quote_plus(secret))
    for ascii_only in (True, False):
        yield json.dumps(secret, ensure_ascii=ascii_only)[1:-1]
    yield repr(secret)[1:-1]
    raw = secret.encode(errors="surrogateescape")
    yield from (raw.hex(), raw.hex().upper())
    yield from _base64(raw)


def _base64(raw: bytes) -> Iterable[str]:
    """Yield the parts of the secret's base64 that do not depend on what surrounds it, as in `user:secret`."""
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        yield encode(raw).decode().rstrip("=")
        for before in range(3):
            text = encode(bytes(before) + raw).decode().rstrip("=")
            certain = text[(before * 8 + 5) // 6 : (before + len(raw)) * 8 // 6]
            if len(certain) >= LEAST_ENCODED:
                yield certain
