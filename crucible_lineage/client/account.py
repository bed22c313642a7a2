"""Whose key it is, and what it may do."""

from __future__ import annotations

from crucible_lineage.client.http.connection import Connection
from crucible_lineage.client.http.wire import parse
from crucible_lineage.client.models import Account, Profile
from crucible_lineage.client.official import OfficialNames

__all__ = ["AccountCalls"]


class AccountCalls(OfficialNames):
    """`client.account`: who the key belongs to, and what it may do."""

    subject = "account"

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def whoami(self) -> Account:
        """The account behind the key."""
        return parse(Account, self._connection.get("/account", "read the account"), "read the account")

    def profile(self) -> Profile:
        """The account's owner, with roles and capabilities."""
        return parse(Profile, self._connection.get("/account/profile", "read the profile"), "read the profile")
