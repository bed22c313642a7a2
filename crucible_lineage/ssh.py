"""Signatures of texts with ssh keys, by `ssh-keygen -Y`: anybody can verify them without this package."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

from crucible_lineage.errors import InputError

__all__ = ["KEY_VARIABLE", "NAMESPACE", "signature_of", "signer_of"]

KEY_VARIABLE = "CRUCIBLE_LINEAGE_SIGNING_KEY"
NAMESPACE = "crucible-lineage"
LIMIT_S = 60.0  # an agent may ask for a touch of a hardware key


def signature_of(text: bytes) -> str:
    """Return the signature of a text by the configured key; empty if there is none. Raises InputError if that fails."""
    key = os.environ.get(KEY_VARIABLE)
    if not key:
        return ""
    done = _run("-Y", "sign", "-f", str(Path(key).expanduser()), "-n", NAMESPACE, given=text)
    if done.returncode or not done.stdout.startswith(b"-----BEGIN SSH SIGNATURE-----"):
        said = done.stderr.decode(errors="replace").strip() or f"ssh-keygen ended with {done.returncode}"
        raise InputError(f"sign with the key {key} ({KEY_VARIABLE}): {said}")
    return done.stdout.decode()


def signer_of(text: bytes, signature: str, allowed: Path) -> str:
    """Return who of the file of allowed signers has signed a text; empty if nobody of them has."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "signature"
        path.write_text(signature, encoding="ascii", errors="replace")
        found = _run("-Y", "find-principals", "-f", str(allowed), "-s", str(path))
        for name in found.stdout.decode(errors="replace").split("\n"):
            if not name:
                continue
            given = ("-f", str(allowed), "-I", name, "-n", NAMESPACE, "-s", str(path))
            if not _run("-Y", "verify", *given, given=text).returncode:
                return name
    return ""


def _run(*arguments: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = ["ssh-keygen", *arguments]
    try:
        return subprocess.run(command, input=given, capture_output=True, timeout=LIMIT_S, check=False)  # noqa: S603
    except (OSError, subprocess.SubprocessError) as error:
        raise InputError(f"ssh-keygen {' '.join(arguments[:2])}: {error}") from error
