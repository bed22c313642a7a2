"""Which hosts links may lead to: whoever can write links could otherwise have this machine ask its neighbours."""

from __future__ import annotations

import ipaddress
import os
import socket
import threading
from urllib.parse import urlsplit

from crucible_lineage.errors import ServerError
from crucible_lineage.service import LINKS, ServiceProfile

__all__ = ["LinkHosts", "is_private"]

PRIVATE_LINKS, LINK_HOSTS = "CRUCIBLE_LINEAGE_PRIVATE_LINKS", "CRUCIBLE_LINEAGE_LINK_HOSTS"
STORES = (  # public object stores
    *("amazonaws.com", "backblazeb2.com", "blob.core.windows.net", "cloudflarestorage.com", "digitaloceanspaces.com"),
    *("storage.googleapis.com", "wasabisys.com"),
)


class LinkHosts:
    """The hosts that links of the service at `api_url` may lead to. Thread-safe.

    They are its own and those of its domain, public object stores, what CRUCIBLE_LINEAGE_LINK_HOSTS lists, and the
    one other host that it has named first. A private address, also of a name, is followed only if the
    service itself has one, or CRUCIBLE_LINEAGE_PRIVATE_LINKS is 1.
    """

    def __init__(self, api_url: str, service: ServiceProfile) -> None:
        self._own = _host(api_url)
        self._service = service
        self._takes_private = is_private(api_url) or os.environ.get(PRIVATE_LINKS) == "1"
        self._listed = set(os.environ.get(LINK_HOSTS, "").replace(",", " ").lower().split())
        self._lock = threading.Lock()
        self._checked: set[str] = set()

    def require(self, url: str, method: str) -> None:
        """Raise ServerError if a link leads elsewhere. A name is looked up once."""
        host = _host(url)
        if host in self._checked:
            return
        if not self._takes_private and (is_private(url) or _resolves_to_private(host)):
            raise ServerError(
                f"the link for {method} leads to the private address {host}, and Crucible has a public one; "
                f"it was not followed. If files are kept there, set {PRIVATE_LINKS}=1"
            )
        with self._lock:
            if not self._is_expected(host) and (known := self._named(host)) != host:
                raise ServerError(
                    f"the link for {method} leads to {host}, and files of this Crucible were at {known} so far; "
                    f"it was not followed. If they are kept there, too, set {LINK_HOSTS}={host}"
                )
            self._checked.add(host)

    def _is_expected(self, host: str) -> bool:
        domain = self._own.partition(".")[2]
        own = {self._own, *([domain] if domain.count(".") else [])}
        return host in self._listed or any(host == one or host.endswith(f".{one}") for one in (*own, *STORES))

    def _named(self, host: str) -> str:
        """Return the other host that files of this service are kept at: this one, if it is the first."""
        if (known := self._service.seen(LINKS)) and not self._is_expected(known):
            return known
        self._service.note(LINKS, True, host)
        return host


def is_private(url: str) -> bool:
    """Return whether an address is one of this machine or a private network, as far as it shows without a look-up."""
    host = _host(url)
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        return "." not in host or host.endswith((".localhost", ".local", ".internal", ".home.arpa"))


def _host(url: str) -> str:
    return (urlsplit(url).hostname or "").rstrip(".").lower()


def _resolves_to_private(host: str) -> bool:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:  # a proxy may know it, which is none of this network then
        return False
    return any(not ipaddress.ip_address(str(one[4][0]).partition("%")[0]).is_global for one in found)
