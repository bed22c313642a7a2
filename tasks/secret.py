"""Secrets in a flow, by name or because a block revealed them in this process. Only their digests are stored.

Prefect's blocks keep secrets in pydantic's types, which return them from a single method. From the first recording on,
its return values are known to the mask, so that they are found wherever the flow's code puts them.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from pydantic import Secret, SecretBytes, SecretStr

from crucible_lineage.errors import InputError
from crucible_lineage.fingerprint.walk import secret_digest
from crucible_lineage.text.masking import is_known, is_secret_name, learn, masked_text, redactor_of, texts_in

LARGEST_SCANNED = 4 << 20  # bytes of a file that is searched


@functools.cache
def watch_secrets() -> None:
    """Start to collect the secrets that blocks return in this process."""
    for kind in (SecretStr, SecretBytes, Secret):
        _watch(kind)


def _watch(kind: Any) -> None:
    original = kind.get_secret_value

    @functools.wraps(original)
    def get_secret_value(self: Any) -> Any:
        value = original(self)
        learn(texts_in(value))
        return value

    kind.get_secret_value = get_secret_value


def shown_secret(value: object, name: str, task: str) -> Any:
    """Return the form of a secret among the parameters: a slow digest."""
    try:
        return secret_digest(value, name, task)
    except InputError:  # an object without a stable spelling
        return {"secret": type(value).__qualname__}


def hidden(value: Any, name: str, task: str) -> Any:
    """Return a parameter without secrets: a secret becomes its digest, parts of longer texts are masked."""
    if isinstance(value, str):
        return shown_secret(value, name, task) if is_known(value) else masked_text(value)
    if isinstance(value, dict):
        return {
            masked_text(str(key)): shown_secret(item, str(key), task)
            if is_secret_name(str(key)) and isinstance(item, str)
            else hidden(item, str(key), task)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [hidden(item, name, task) for item in value]
    return value


def holds_secret(path: Path) -> bool:
    """Return whether a file of moderate size, or its name, contains a secret."""
    if masked_text(path.name) != path.name:
        return True
    return path.stat().st_size <= LARGEST_SCANNED and redactor_of().holds(path.read_bytes())
