"""Secrets in a flow, by name or because a block revealed them in this process. Only their digests are stored.

Prefect's blocks keep secrets in pydantic's types, which return them from a single method. From the first recording on,
its return values are kept in memory, so that they are found wherever the flow's code puts them.
"""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import Secret, SecretBytes, SecretStr

from crucible_lineage.errors import InputError
from crucible_lineage.fingerprint.walk import secret_digest
from crucible_lineage.pipeline.logs import BLOT, Redactor

LEAST_LETTERS = 6  # of a secret that is searched for: shorter ones occur everywhere
LARGEST_SCANNED = 4 << 20  # bytes of a file that is searched
LARGEST_TEXT = 1 << 20  # bytes of a file that is searched for addresses
_NAME = re.compile(
    r"(^|_)(password|passwd|passphrase|pwd|secret|token|api_?key|access_?key|private_?key|credentials?)s?($|_)", re.I
)
_IN_ADDRESS = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]{0,30}://[^\s/:@]{0,100}):(?P<secret>[^\s/@]{1,200})@", re.I)
_KEY_FILES = re.compile(
    r"(^\.env(\..*)?$|^id_(rsa|dsa|ecdsa|ed25519)|^\.?(netrc|pgpass|htpasswd)$|\.(pem|key|p12|pfx|jks|kdbx)$)", re.I
)

_revealed: set[str] = set()
_redactor = Redactor()
_lock = threading.Lock()


@functools.cache
def watch_secrets() -> None:
    """Start to collect the secrets that blocks return in this process."""
    for kind in (SecretStr, SecretBytes, Secret):
        _watch(kind)


def _watch(kind: Any) -> None:
    original = kind.get_secret_value

    @functools.wraps(original)
    def get_secret_value(self: Any) -> Any:
        global _redactor
        value = original(self)
        secrets = {text for text in _texts(value) if len(text) >= LEAST_LETTERS} - _revealed
        if secrets:
            with _lock:
                _revealed.update(secrets)
                _redactor = Redactor(_revealed)
        return value

    kind.get_secret_value = get_secret_value


def _texts(value: object) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, bytes):
        yield value.decode(errors="replace")
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _texts(item)


def is_secret_name(name: str) -> bool:
    """Return whether the name of an argument or key suggests a secret: password, token, api_key and the like."""
    return _NAME.search(name) is not None


def is_key_file(path: Path) -> bool:
    """Return whether a file contains keys or passwords, by its name or folder."""
    return _KEY_FILES.search(path.name) is not None or any(part in (".ssh", ".aws", ".gnupg") for part in path.parts)


def shown_secret(value: object, name: str, task: str) -> Any:
    """Return the form of a secret among the parameters: a slow digest."""
    try:
        return secret_digest(value, name, task)
    except InputError:  # an object without a stable spelling
        return {"secret": type(value).__qualname__}


def known_secrets() -> tuple[str, ...]:
    """Return the secrets that blocks have returned in this process."""
    with _lock:
        return tuple(sorted(_revealed))


def hidden_text(text: str) -> str:
    """Redact secrets in a text: those that were revealed, and passwords in addresses."""
    if "://" in text:
        text = _IN_ADDRESS.sub(rf"\g<scheme>:{BLOT}@", text)
    return _redactor.text(text)


def hidden(value: Any, name: str, task: str) -> Any:
    """Return a parameter without secrets: a secret becomes its digest, parts of longer texts are redacted."""
    if isinstance(value, str):
        return shown_secret(value, name, task) if value in _revealed else hidden_text(value)
    if isinstance(value, dict):
        return {
            hidden_text(str(key)): shown_secret(item, str(key), task)
            if is_secret_name(str(key)) and isinstance(item, str)
            else hidden(item, str(key), task)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [hidden(item, name, task) for item in value]
    return value


def holds_secret(path: Path) -> bool:
    """Return whether a file contains a revealed secret, or a text file a password in an address."""
    size = path.stat().st_size
    if size > LARGEST_SCANNED or not (_redactor or size <= LARGEST_TEXT):
        return False
    content = path.read_bytes()
    if _redactor and _redactor.data(content)[0] != content:
        return True
    if size > LARGEST_TEXT or b"://" not in content:
        return False
    return _IN_ADDRESS.search(content.decode(errors="replace")) is not None
