"""Assumptions about a Crucible service, whether one satisfies them, and the fallbacks.

Whether a service keeps to an assumption is learnt by runs as they meet it, and by `doctor`, which tries each. What was
learnt is kept beside the mirror of that service, and goes before every try.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from crucible_lineage.errors import RefusedError
from crucible_lineage.times import utc

__all__ = [
    "ASSUMPTIONS",
    "CLOCK_IDS",
    "COLONS",
    "DATES",
    "DERIVED_IDS",
    "FILES_BY_HASH",
    "FREE_METADATA",
    "GRAPHS",
    "LINKS",
    "REVISIONS",
    "SIGNED",
    "TAKEN_IDS",
    "Assumption",
    "Observation",
    "ServiceProfile",
]

CLOCK_IDS = "ids of version 7"
COLONS = "keywords with a colon"
DATES = "modification times"
DERIVED_IDS = "ids of version 8"
FILES_BY_HASH = "files by hash"
FREE_METADATA = "free metadata"
GRAPHS = "graphs"
LINKS = "links to known hosts"
REVISIONS = "revisions"
SIGNED = "signed uploads"
TAKEN_IDS = "taken ids"

LASTS = timedelta(days=7)  # chosen: what a service did not do so long ago is tried again

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Assumption:
    """Something that is relied on: `name`, as tables have it, and what `holds` where a service keeps to it.

    `otherwise` is what is done where it does not, None if nothing helps; `lost` is what is missing then. Without what
    is `needed` nothing can be registered.
    """

    name: str
    holds: str
    otherwise: str | None
    lost: str = ""
    needed: bool = False


_ALL = (
    Assumption(
        "written-back metadata",
        "ingestion leaves what was written meanwhile as it is",
        "what is written are marks that an older copy cannot take back",
    ),
    Assumption(
        "filled-in fields",
        "ingestion fills no field of a dataset",
        "facts about a result are those of its registration",
    ),
    Assumption(
        CLOCK_IDS,
        "a dataset gets the id that a client made from the clock",
        "datasets are found by the keyword recipe:ID",
        "ids cannot be known before, so results wait for the service",
    ),
    Assumption(
        DERIVED_IDS,
        "a dataset gets the id that its recipe gives, with a time of choice",
        "datasets are found by the keyword recipe:ID",
        "the same work has other ids than elsewhere, and results wait for the service before they are used",
    ),
    Assumption(
        TAKEN_IDS,
        "a second dataset of an id is refused, and the first one left as it is",
        "the id is looked for before a dataset is made, a call more for each",
        "two machines that make the same at one moment may overwrite each other's fields",
    ),
    Assumption(
        "first metadata",
        "metadata that are there are not replaced unless that is asked for (409)",
        None,
        "nothing can be registered",
        needed=True,
    ),
    Assumption(
        "merged metadata",
        "what is written is merged, and the whole is the answer",
        None,
        "nothing can be registered",
        needed=True,
    ),
    Assumption(
        DATES,
        "modification_time moves when metadata, keywords, files or links change",
        "projects are listed whole each time",
        "what others change is seen later",
    ),
    Assumption(
        COLONS,
        "keywords may hold `:` and 40 signs",
        "keywords are written with `_` in place of `:`",
        "in Crucible's own pages they read otherwise",
    ),
    Assumption(FREE_METADATA, "metadata may hold any keys, and 100 kB", None, "nothing can be registered", needed=True),
    Assumption(
        "empty files", "a file of 0 bytes can be uploaded", None, "results with an empty file cannot be registered"
    ),
    Assumption(
        FILES_BY_HASH,
        "GET /files finds files of all datasets by their SHA-256",
        "files are found by the provenance records of the project",
        "measured files that another program registered are not recognised, and are registered once more",
    ),
    Assumption(
        "file deletion",
        "who registered a file may delete it",
        None,
        "what another registration left half done cannot be finished with other files",
    ),
    Assumption(
        "immediate lists",
        "a new dataset is in lists at once",
        "datasets are looked for by their ids, too",
        "other machines see results later",
    ),
    Assumption("pages of 1000", "lists give up to 1000 datasets at once", "smaller pages are followed"),
    Assumption(
        "lists with metadata",
        "lists hold metadata and links of each dataset",
        None,
        "what others made is found by its id only, and lists and checks show nothing",
    ),
    Assumption(
        REVISIONS,
        "answers carry Crucible-Revision, which only the embedded Crucible does",
        "what a pipeline made is listed",
    ),
    Assumption(
        GRAPHS,
        "entity_graph_cte/MFID gives what hangs together",
        "lineages are put together from the links of whole projects",
        "the first question about a project takes longer",
    ),
    Assumption(
        SIGNED,
        "files are sent in parts to signed links",
        "files are sent in one piece, by the resumable protocol",
        "large uploads take longer",
    ),
    Assumption(
        "uploads",
        "files of 1 MB and 40 MB arrive and come back with the same bytes",
        None,
        "nothing can be registered",
        needed=True,
    ),
    Assumption(
        LINKS,
        "signed links lead to one host, with a private address only if the service has one",
        "links are followed to private addresses if CRUCIBLE_LINEAGE_PRIVATE_LINKS is 1, and to further hosts if "
        "CRUCIBLE_LINEAGE_LINK_HOSTS lists them",
        "files cannot be fetched without that",
    ),
    Assumption(
        "Retry-After",
        "who asks too often is answered 429, and when to come back",
        "waits between tries double",
    ),
)
ASSUMPTIONS = {one.name: one for one in _ALL}


@dataclass(frozen=True)
class Observation:
    """Observation of an assumption, by a `run` or by `doctor`. `holds` is None if it could not be tried."""

    name: str
    holds: bool | None
    seen: str
    by: str
    at: str

    @property
    def is_missing(self) -> bool:
        """Whether it does not hold, and nothing helps."""
        return self.holds is False and ASSUMPTIONS[self.name].otherwise is None

    def to_json(self) -> dict[str, Any]:
        """Return the finding as programs get it, with what it means."""
        assumed = ASSUMPTIONS[self.name]
        used = assumed.otherwise if self.holds is False else None
        lost = assumed.lost if self.holds is False else ""
        return {**asdict(self), "tried": assumed.holds, "fallback": used, "lost": lost, "missing": self.is_missing}


class ServiceProfile:
    """Knowledge about one service. Thread-safe. `read` returns earlier findings, `write` stores new ones.

    Where nothing was tried, `holds` answers None; with `is_ours`, of the embedded Crucible, True.
    """

    def __init__(
        self,
        read: Callable[[], Iterable[Observation]] = tuple,
        write: Callable[[Observation], object] = lambda _: None,
        *,
        is_ours: bool = False,
    ) -> None:
        self._read, self._write = read, write
        self._is_ours = is_ours
        self._lock = threading.RLock()
        self._news = threading.Condition(self._lock)
        self._tried: set[str] = set()  # by a thread of this process, just now
        self._found: dict[str, Observation] | None = None

    def findings(self) -> list[Observation]:
        """Return all that was learnt, in the order of the assumptions."""
        known = self._known()
        return [known[name] for name in ASSUMPTIONS if name in known]

    def holds(self, name: str) -> bool | None:
        """Return whether the service keeps to an assumption, as far as it is known."""
        found = self._known().get(name)
        if found is not None and found.holds is not None:
            if found.holds or datetime.now(UTC) - utc(found.at) < LASTS:
                return found.holds
            return None
        return True if self._is_ours else None

    def seen(self, name: str) -> str:
        """Return the first word of what was seen of an assumption that holds; empty if nothing was."""
        found = self._known().get(name)
        return found.seen.partition(" ")[0] if found and found.holds else ""

    @property
    def accepts_client_ids(self) -> bool:
        """Whether datasets are known to get the ids that their recipes give."""
        return self.holds(DERIVED_IDS) is True

    def note(self, name: str, holds: bool | None, seen: str, *, by: str = "run") -> None:
        """Keep what was seen. What is lost where an assumption does not hold is logged the first time."""
        with self._lock:
            known = self._known()
            before = self.holds(name)
            is_known = before is holds and (name in known or self._is_ours)
            if by == "run" and is_known and name != LINKS:  # of links it counts what was seen: which host
                return
            found = Observation(
                name, holds, " ".join(seen.split())[:300], by, datetime.now(UTC).isoformat(timespec="seconds")
            )
            known[name] = found
            self._write(found)
            self._news.notify_all()
        assumed = ASSUMPTIONS[name]
        if by == "run" and holds is False and assumed.otherwise and assumed.lost:
            log.warning(
                "this Crucible is otherwise than assumed (%s: %s): %s; %s",
                name, found.seen, assumed.otherwise, assumed.lost,
            )  # fmt: skip

    def require_usable(self) -> None:
        """Raise RefusedError if something is missing without which nothing can be registered."""
        for found in self.findings():
            if ASSUMPTIONS[found.name].needed and self.holds(found.name) is False:
                raise RefusedError(
                    f"this Crucible cannot be used: {ASSUMPTIONS[found.name].holds} ({found.name}), and here: "
                    f"{found.seen}; nothing was created. If that was changed, have it tried: crucible-lineage doctor"
                )

    @contextmanager
    def first(self, name: str) -> Iterator[None]:
        """Let others wait until it is known whether an assumption holds, or this block has ended."""
        with self._news:
            while self.holds(name) is None and name in self._tried:
                self._news.wait()
            tries = self.holds(name) is None
            if tries:
                self._tried.add(name)
        try:
            yield
        finally:
            if tries:
                with self._news:
                    self._tried.discard(name)
                    self._news.notify_all()

    def _known(self) -> dict[str, Observation]:
        with self._lock:
            if self._found is None:
                self._found = {one.name: one for one in self._read() if one.name in ASSUMPTIONS}
            return self._found
