"""Whose key it is, and what it may do."""

from __future__ import annotations

from crucible_lineage.client.http.connection import Session
from crucible_lineage.client.http.wire import parse
from crucible_lineage.client.models import Account, Profile

__all__ = ["AccountCalls"]


class AccountCalls:
    """`client.account`."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def whoami(self) -> Account:
        """The account behind the key."""
        return parse(Account, self._session.get("/account", "read the account"), "read the account")

    def profile(self) -> Profile:
        """The account's owner, with roles and capabilities."""
        return parse(Profile, self._session.get("/account/profile", "read the profile"), "read the profile")
