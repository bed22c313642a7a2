"""Puts into roc-validator's HTTP cache the one address that it asks for: the context of RO-Crate 1.1.

    python warm_validator.py CACHE

Run by the Python of the validators' environment, where `rocrate` brings the file. Then the validator needs no network.
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

CONTEXT = "https://w3id.org/ro/crate/1.1/context"


class FromPackage(HTTPAdapter):
    """Answers with the context that `rocrate` brings."""

    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
        content = files("rocrate").joinpath("data/ro-crate.jsonld").read_bytes()
        if json.loads(content)["@id"] != CONTEXT:
            raise SystemExit(f"rocrate brings {json.loads(content)['@id']}, not {CONTEXT}: pin another version")
        headers = {"Content-Type": "application/ld+json"}
        answer = HTTPResponse(io.BytesIO(content), headers, 200, preload_content=False, request_method="GET")
        return self.build_response(request, answer)


with requests_cache.CachedSession(sys.argv[1], backend="sqlite", expire_after=-1) as session:
    session.mount(CONTEXT, FromPackage())
    session.get(CONTEXT).raise_for_status()
