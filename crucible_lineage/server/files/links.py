"""Signed links to stored bytes: short-lived permissions that need no key, checked without a look into any table."""

from __future__ import annotations

import hashlib
import hmac
import time
from urllib.parse import quote, urlencode

__all__ = ["LIFETIME_S", "Links"]

LIFETIME_S = 3600  # what Crucible states for its download links


class Links:
    """Makes and checks links with one secret, that of the data folder."""

    def __init__(self, secret: str) -> None:
        self._secret = secret.encode()

    def sign(self, base_url: str, path: str, lifetime_s: int = LIFETIME_S, **values: str) -> str:
        """The address of `path` with these values, good for that long."""
        values["expires"] = str(int(time.time()) + lifetime_s)
        return f"{base_url}{quote(path)}?{urlencode(values | {'signature': self._signature(path, values)})}"

    def accepts(self, path: str, values: dict[str, str]) -> bool:
        """True if this server signed exactly this and it has not expired."""
        claimed = dict(values)
        signature = claimed.pop("signature", "")
        expires = claimed.get("expires", "")
        if not hmac.compare_digest(signature.encode(), self._signature(path, claimed).encode()):
            return False
        return expires.isdigit() and int(expires) > time.time()

    def _signature(self, path: str, values: dict[str, str]) -> str:
        message = "\n".join([path, *(f"{name}={values[name]!r}" for name in sorted(values))])
        return hmac.new(self._secret, message.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()
