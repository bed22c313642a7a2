"""Follows the pages of a list, whichever of the service's two styles it uses."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, TypeVar

from crucible_lineage.client.http.connection import Connection
from crucible_lineage.client.http.wire import Params, parse
from crucible_lineage.client.models import Received
from crucible_lineage.errors import InputError, ServerError

__all__ = ["PAGE", "count_of", "pages"]

Record = TypeVar("Record", bound=Received)
PAGE = 1000  # the largest page that the service gives


def pages(
    connection: Connection, path: str, model: type[Record], what: str, params: Params, limit: int | None = None
) -> Iterator[Record]:
    """The records of a list one by one, page after page, `limit` of them or all."""
    if limit is not None and limit < 0:
        raise InputError(f"could not {what}: the limit is {limit}; give a number from 0 on, or None for all")
    items = _items(connection, path, what, params, PAGE if limit is None else min(limit, PAGE))
    return (parse(model, item, what) for item in islice(items, limit))


def count_of(connection: Connection, path: str, what: str, params: Params) -> int:
    """Count the records of the list."""
    total = _page(connection, path, what, {**params, "limit": 1}).get("total")
    if not isinstance(total, int):
        raise ServerError(f"could not {what}: Crucible's answer has no total")
    return total


def _items(connection: Connection, path: str, what: str, params: Params, size: int) -> Iterator[Any]:
    """All items. A page names the next one by cursor; or it has a total, and the next one is asked for by offset."""
    if size == 0:
        return
    position: dict[str, Any] = {}
    offset = 0
    while True:
        page = _page(connection, path, what, {**params, "limit": size, **position})
        items = page["items"]
        yield from items
        offset += len(items)
        cursor, total = page.get("next_cursor"), page.get("total")
        if not items:
            return
        if cursor:
            position = {"cursor": cursor}
        elif "cursor" not in position and isinstance(total, int) and offset < total:
            position = {"offset": offset}
        else:
            return


def _page(connection: Connection, path: str, what: str, params: Params) -> dict[str, Any]:
    page = connection.get(path, what, params=params)
    if not isinstance(page, dict) or not isinstance(page.get("items"), list):
        raise ServerError(f"could not {what}: Crucible's answer is no page of items")
    return page
