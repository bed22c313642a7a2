"""Canonical parameters of a step: equal values give equal ids."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping

from crucible_lineage.errors import InputError
from crucible_lineage.fingerprint.values import ValueFaultError, plain_value
from crucible_lineage.fingerprint.walk import code_fingerprint
from crucible_lineage.ids import canonical_json
from crucible_lineage.step import Step

SECRET_TAG = b"crucible-lineage/secret/1\n"
# 16 MB and some 50 ms for each guess at a secret; chosen so that planning stays fast.
_SCRYPT_COST = {"n": 1 << 14, "r": 8, "p": 1}


def canonical_params(params: Mapping[str, object], step: Step[..., object] | None = None) -> dict[str, object]:
    """Return the parameters as plain JSON values, secret ones as digests.

    Raises InputError for a parameter without a stable spelling.
    """
    secrets = {spec.name for spec in step.parameters if spec.secret} if step else set()
    home = step.function.__module__ if step else None
    return {
        name: secret_digest(value, name, step.name) if step and name in secrets else canonical_value(value, name, home)
        for name, value in params.items()
    }


def canonical_value(value: object, name: str, home: str | None = None, *, reveal: bool = False) -> object:
    """Return `value` as JSON: numbers, text, lists and objects. Raises InputError, with `name`, if that is impossible.

    A function becomes the fingerprint of its code, seen from the module `home`. Secrets are refused, unless `reveal`
    says that the result only enters a digest.
    """

    def other(part: object, path: str) -> object:
        if isinstance(part, (type, functools.partial)) or (callable(part) and hasattr(part, "__name__")):
            return {"code": code_fingerprint(part, home=home).digest}
        if not hasattr(part, "get_secret_value"):
            return None
        if reveal:
            return plain_value(part.get_secret_value(), path, other)
        raise InputError(
            f"parameter {path!r} is or contains a secret, whose value must not enter an id or a record; name the "
            f"parameter in @step(secrets=[{path.partition('.')[0]!r}]), or take the secret from a block or the "
            "environment inside the step"
        )

    try:
        return plain_value(value, name, other)
    except ValueFaultError as fault:
        raise InputError(f"parameter {fault.path!r} {fault.reason}") from None


def secret_digest(value: object, name: str, step: str) -> dict[str, str] | None:
    """Return a secret's slow digest for ids and records: it reveals changes, and makes guessing hard.

    It is the same on every machine, and differs between steps and parameters. docs/identity.md explains it.
    """
    if value is None:
        return None
    content = canonical_json(canonical_value(value, name, reveal=True))
    salt = SECRET_TAG + canonical_json([step, name])
    return {"secret": hashlib.scrypt(content, salt=salt, dklen=16, **_SCRYPT_COST).hex()}
