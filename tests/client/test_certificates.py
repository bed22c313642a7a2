"""The error of a connection that is not secure comes at once, since waiting does not repair a certificate."""

from __future__ import annotations

import http.server
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme

from crucible_lineage.client import CrucibleClient
from crucible_lineage.errors import CertificateError, UnreachableError


@contextmanager
def serving(context: ssl.SSLContext | None) -> Iterator[str]:
    """The https address of a server whose certificate nobody has signed, or that does not speak TLS."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    server.handle_error = lambda *_: None  # type: ignore[method-assign,assignment]
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"https://127.0.0.1:{server.server_address[1]}/api/v3"
    finally:
        server.shutdown()
        server.server_close()


def of_nobody() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.mark.parametrize("context", [of_nobody, lambda: None], ids=["nobody vouches for it", "no TLS"])
def test_it_is_reported_at_once_and_not_tried_again(context: object) -> None:
    assert callable(context)
    with serving(context()) as url, CrucibleClient(url, "key") as client:
        began = time.monotonic()
        with pytest.raises(CertificateError, match="SSL_CERT_FILE") as told:
            client.account.whoami()
    assert time.monotonic() - began < 10, "and not after the 90 s of a call"
    assert "tried" not in str(told.value)


def test_a_certificate_that_is_trusted_is_none_of_these(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    with serving(context) as url, CrucibleClient(url, "key") as client, client.repeating(0.0):
        with pytest.raises(Exception, match="501") as told:
            client.account.whoami()
    assert not isinstance(told.value, UnreachableError)
