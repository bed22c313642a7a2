"""A secret given to a step is in nothing that is stored about it, in any encoding."""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pytest

from crucible_lineage.masking import Redactor
from crucible_lineage.pipeline.logs import LOG_LIMIT_BYTES, StepLog
from crucible_lineage.session import Session

SECRET = 'top secret/"ä"+4711'


def spellings(secret: str) -> dict[str, str]:
    """Return the encodings in which programs print a secret."""
    raw = secret.encode()
    return {
        "raw": secret,
        "base64": base64.b64encode(raw).decode(),
        "base64 for addresses": base64.urlsafe_b64encode(raw).decode(),
        "basic authentication": base64.b64encode(b"me:" + raw).decode(),
        "basic authentication, another name": base64.b64encode(b"user:" + raw + b"x").decode(),
        "quoted": quote(secret),
        "quoted, all of it": quote(secret, safe=""),
        "quoted as in forms": quote_plus(secret),
        "JSON": json.dumps(secret),
        "JSON, not only ASCII": json.dumps(secret, ensure_ascii=False),
        "Python": repr(secret),
        "hexadecimal": raw.hex(),
    }


def test_each_encoding_is_redacted() -> None:
    redactor = Redactor([SECRET])
    certain = base64.b64encode(SECRET.encode()).decode()[4:16]
    for name, text in spellings(SECRET).items():
        shown = redactor.text(f"before {text} after")
        assert "***" in shown, name
        assert shown.startswith("before "), name
        assert not any(part in shown for part in (SECRET, quote(SECRET), SECRET.encode().hex(), certain)), (name, shown)
    assert Redactor([""]).text("as it was") == "as it was"


@pytest.mark.parametrize("size", [1, 2, 7, 64])
def test_a_secret_written_in_parts_is_redacted(tmp_path: Path, size: int) -> None:
    text = f"first {SECRET}\nsecond {SECRET}{SECRET} top secr".encode()
    heard: list[str] = []
    with StepLog(tmp_path / "log", Redactor([SECRET]), heard.append) as log:
        for start in range(0, len(text), size):
            log.write(text[start : start + size])
    assert log.path.read_text() == "first ***\nsecond ****** top secr"
    assert heard == ["first ***", "second ****** top secr"]


def test_a_secret_at_the_cut_of_a_long_log_is_redacted(tmp_path: Path) -> None:
    with StepLog(tmp_path / "log", Redactor([SECRET])) as log:
        for _ in range(4 * LOG_LIMIT_BYTES // 1000):
            log.write(b"x" * 990 + SECRET.encode())
    assert SECRET.encode() not in log.path.read_bytes()
    assert log.path.stat().st_size < 2 * LOG_LIMIT_BYTES


TELLING = """
import base64, json, os, subprocess, sys
from pathlib import Path
from urllib.parse import quote
from pydantic import SecretStr

def tell(secret):
    print(secret, quote(secret), json.dumps(secret), base64.b64encode(b"me:" + secret.encode()).decode(), flush=True)
    os.write(2, secret.encode() + b"\\n")

def annotate(counts: Path, *, token: SecretStr, fails: bool = False, out: Path) -> dict:
    tell(token.get_secret_value())
    (out / "note.txt").write_text("noted")
    if fails:
        raise ValueError(f"not taken: {token.get_secret_value()}")

if __name__ == "__main__":
    tell(os.environ["TOKEN"])
    Path(sys.argv[2], "note.txt").write_text("noted")
    sys.exit(len(sys.argv) > 3)
"""


@pytest.mark.parametrize("fails", [False, True], ids=["made", "failed"])
@pytest.mark.parametrize("kind", ["function", "function with a time limit", "command"])
def test_a_printed_secret_is_stored_nowhere(
    lab: Any, session: Session, run: Any, monkeypatch: pytest.MonkeyPatch, kind: str, fails: bool
) -> None:
    monkeypatch.setenv("LAB_TOKEN", SECRET)
    lab.file(f"{lab.module}_tells.py", TELLING)
    end = ", wrong" if fails else ""
    command = f'["{sys.executable}", {lab.module}_tells.py, "{{inputs.counts}}", "{{out}}"{end}]'
    limit = ", timeout: 60" if "limit" in kind else ""
    params = f'params: {{token: "${{env.LAB_TOKEN}}", fails: {str(fails).lower()}}}{limit}'
    how = (
        f'run: {command}, env: {{TOKEN: "${{env.LAB_TOKEN}}"}}'
        if kind == "command"
        else f"uses: {lab.module}_tells:annotate, {params}"
    )
    path = lab.declare(
        f"""
        pipeline: telling
        project: lab
        env: [LAB_TOKEN]
        inputs: {{first: {{file: first.txt, timestamp: "2024-05-01T12:00:00Z"}}}}
        steps:
          shown: {{{how}, inputs: {{counts: first}}}}
        """
    )
    result = run(path)
    assert result.outcomes["shown"] == ("failed" if fails else "executed"), result.errors
    path = result.logs["shown"] if fails else ""
    log = Path(path).read_text() if fails else log_of(session, result.datasets["shown"]["out"])
    assert log.count("***") >= 5, log
    session.client.close()
    hidden = [SECRET, *spellings(SECRET).values()]
    found = [
        (path, secret)
        for path in session.settings.data.rglob("*")
        if path.is_file() and not path.is_socket()
        for secret in hidden
        if secret.encode() in path.read_bytes()
    ]
    assert found == []
    assert not any(secret in json.dumps(result.to_json(), ensure_ascii=False) for secret in hidden)


def log_of(session: Session, mfid: str) -> str:
    (log,) = (file for file in session.client.datasets.list_files(mfid) if file.filename == "step.log")
    return session.client.files.download_bytes(log).decode()
