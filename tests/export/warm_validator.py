"""Puts a context of RO-Crate, the one address that roc-validator asks for, into its HTTP cache.

    python warm_validator.py CACHE

Run by the Python of the validators' environment, whose `rocrate` brings the context of RO-Crate 1.1. Then the validator
needs no network.
"""

from __future__ import annotations

import io
import json
import sys
from importlib.resources import files
from typing import Any

import requests
import requests_cache
from requests.adapters import HTTPAdapter
from urllib3 import HTTPResponse

OWN = "https://w3id.org/ro/crate/1.1/context"


class FromFile(HTTPAdapter):
    """An adapter that answers with the content of a file."""

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self.content = content

    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
        headers = {"Content-Type": "application/ld+json"}
        answer = HTTPResponse(io.BytesIO(self.content), headers, 200, preload_content=False, request_method="GET")
        return self.build_response(request, answer)


found = files("rocrate").joinpath("data/ro-crate.jsonld").read_bytes()
context = json.loads(found)["@id"]
if context != OWN:
    raise SystemExit(f"rocrate brings {context}, not {OWN}: pin another version")
with requests_cache.CachedSession(sys.argv[1], backend="sqlite", expire_after=-1) as session:
    session.mount(context, FromFile(found))
    session.get(context).raise_for_status()
