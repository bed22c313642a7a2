"""A proxy before an object store that counts requests, and fails where a test says so; it hands out tokens, too."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from tests.proxy import Call, Proxy


@dataclass
class Fault:
    """What goes wrong `times` times with GETs of a path: a status, a cut after `bytes`, a changed first byte."""

    action: str
    path: str
    times: int = 1
    status: int = 503
    bytes: int = 0
    hits: int = 0


class FaultyProxy(Proxy):
    """`requests` are the targets of GET requests, in order."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        super().__init__()

    def fault(self, action: str, **fields: Any) -> None:
        """Let this go wrong from now on."""
        self.faults.append(Fault(action, **fields))

    def next_fault(self, target: str) -> Fault | None:
        with self.lock:
            self.requests.append(target)
            for fault in self.faults:
                if fault.times and re.search(fault.path, target):
                    fault.times -= 1
                    fault.hits += 1
                    return fault
        return None

    def service_account(self) -> dict[str, str]:
        """The key of an account, made for this; its tokens are handed out here."""
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import rsa

        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        kinds = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        return {
            "type": "service_account",
            "project_id": "lab",
            "client_email": "lab@lab.iam.gserviceaccount.com",
            "private_key_id": "1",
            "private_key": key.private_bytes(*kinds).decode(),
            "token_uri": f"{self.url}/token",
        }

    def handle(self, call: Call) -> None:
        fault = self.next_fault(call.path) if call.command == "GET" else None
        if call.path == "/token":
            token = {"access_token": "lent", "expires_in": 3600, "token_type": "Bearer"}
            call.answer(200, {"Content-Type": "application/json"}, json.dumps(token).encode())
        elif fault and fault.action == "status":
            error = {"error": {"code": fault.status, "message": "a fault"}}
            call.answer(fault.status, {"Content-Type": "application/json"}, json.dumps(error).encode())
        else:
            status, headers, content = call.forward()
            if fault and fault.action == "changed":
                content = bytes([content[0] ^ 1]) + content[1:]
            call.answer(status, headers, content, fault.bytes if fault and fault.action == "cut" else None)
