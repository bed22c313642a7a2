"""What this data folder knows of a pipeline's places, and up to when it has seen what others changed at Crucible."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from crucible_lineage.core.store import Store

__all__ = ["SEVERAL", "KnownPlaces", "Seen"]

SEVERAL = "*"  # what stands for the result of a place where several hold: which is meant, Crucible is asked


@dataclass(frozen=True)
class Seen:
    """The state of a project at Crucible when this data folder last looked: its revision, and the latest change."""

    revision: str
    latest: str | None


class KnownPlaces:
    """Of one pipeline in one project: the result that was last relied on for each place, and what was seen."""

    def __init__(self, store: Store, project: str, pipeline: str) -> None:
        self._store = store
        self._key = (store.instance, project.casefold(), pipeline)

    def relied_on(self) -> dict[str, str]:
        """{place: MFID of the result that holds there, or SEVERAL}, as far as this data folder knows."""
        sql = "SELECT place, mfid FROM place WHERE instance = ? AND project = ? AND pipeline = ? AND place <> ''"
        return dict(self._store.database.rows(sql, *self._key))

    def file(self) -> str | None:
        """The name of the declaration whose run relied on these last; None if that is not known."""
        sql = "SELECT mfid FROM place WHERE instance = ? AND project = ? AND pipeline = ? AND place = ''"
        row = self._store.database.row(sql, *self._key)
        return row[0] if row else None

    def note_file(self, name: str) -> None:
        """The declaration with this name is the one whose run relies on them now."""
        self.note({"": name})

    def note(self, places: Mapping[str, str]) -> None:
        """These results hold in these places from now on."""
        rows = [(*self._key, place, mfid) for place, mfid in places.items()]
        self._store.database.write_many("INSERT OR REPLACE INTO place VALUES (?, ?, ?, ?, ?)", rows)

    def replace(self, places: Mapping[str, str]) -> None:
        """These results hold, and nothing else is known any more."""
        rows = [(*self._key, place, mfid) for place, mfid in places.items()]

        def within(connection: sqlite3.Connection) -> None:
            where = "instance = ? AND project = ? AND pipeline = ? AND place <> ''"
            connection.execute(f"DELETE FROM place WHERE {where}", self._key)  # noqa: S608  a text of ours
            connection.executemany("INSERT INTO place VALUES (?, ?, ?, ?, ?)", rows)

        self._store.database.transaction(within)

    def described(self) -> dict[str, str]:
        """{declared step: digest of how its outputs were described}, as this data folder last saw to it."""
        sql = "SELECT step, digest FROM described WHERE instance = ? AND project = ? AND pipeline = ?"
        return dict(self._store.database.rows(sql, *self._key))

    def note_described(self, digests: Mapping[str, str]) -> None:
        """The results of these steps are described so."""
        rows = [(*self._key, step, digest) for step, digest in digests.items()]
        self._store.database.write_many("INSERT OR REPLACE INTO described VALUES (?, ?, ?, ?, ?)", rows)

    def seen(self) -> Seen | None:
        """What was seen last; None if this data folder has never looked."""
        sql = "SELECT revision, latest FROM look WHERE instance = ? AND project = ? AND pipeline = ?"
        row = self._store.database.row(sql, *self._key)
        return Seen(row[0], row[1]) if row else None

    def written(self) -> frozenset[str]:
        """The datasets that this data folder itself has written to since then."""
        sql = "SELECT written FROM look WHERE instance = ? AND project = ? AND pipeline = ?"
        row = self._store.database.row(sql, *self._key)
        return frozenset(json.loads(row[0])) if row else frozenset()

    def note_seen(self, seen: Seen) -> None:
        """Everything up to this state was seen."""
        self._store.database.write("INSERT OR REPLACE INTO look VALUES (?, ?, ?, ?, ?, '[]')", *self._key, *_of(seen))

    def note_written(self, mfids: Iterable[str]) -> None:
        """This data folder has written to these; that they changed is no news to it."""
        known = json.dumps(sorted({*self.written(), *mfids}))
        sql = "UPDATE look SET written = ? WHERE instance = ? AND project = ? AND pipeline = ?"
        self._store.database.write(sql, known, *self._key)


def _of(seen: Seen) -> tuple[str, str | None]:
    return seen.revision, seen.latest
