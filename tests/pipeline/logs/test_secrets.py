"""A secret given to a step is in nothing that is stored about it, in any encoding."""

from __future__ import annotations

import base64
import json
from contextlib import closing
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest

from crucible_lineage.pipeline.logs import LOG_LIMIT_BYTES, StepLog
from crucible_lineage.text.masking import Redactor

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


@pytest.mark.parametrize("size", [1, 7])
def test_a_secret_written_in_parts_is_redacted(tmp_path: Path, size: int) -> None:
    text = f"first {SECRET}\nsecond {SECRET}{SECRET} top secr".encode()
    heard: list[str] = []
    with closing(StepLog(tmp_path / "log", Redactor([SECRET]), heard.append)) as log:
        for start in range(0, len(text), size):
            log.write(text[start : start + size])
    assert log.path.read_text() == "first ***\nsecond ****** top secr"
    assert heard == ["first ***", "second ****** top secr"]


def test_a_secret_at_the_cut_of_a_long_log_is_redacted(tmp_path: Path) -> None:
    with closing(StepLog(tmp_path / "log", Redactor([SECRET]))) as log:
        for _ in range(4 * LOG_LIMIT_BYTES // 1000):
            log.write(b"x" * 990 + SECRET.encode())
    assert SECRET.encode() not in log.path.read_bytes()
    assert log.path.stat().st_size < 2 * LOG_LIMIT_BYTES
