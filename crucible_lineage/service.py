"""Assumptions about a Crucible service, whether one satisfies them, and the fallbacks.

Runs observe whether a service satisfies an assumption when they rely on it, and `doctor` tests each of them.
Observations are stored beside the mirror of that service, so that nothing is tested twice.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

from crucible_lineage.errors import RefusedError
from crucible_lineage.times import utc

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

LASTS = timedelta(days=7)  # chosen: after that, a violated assumption is tested again

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Assumption:
    """An assumption: its `name` in tables, and what `holds` at a service that satisfies it.

    `otherwise` is the fallback, None if there is none; `lost` is what is missing then. If a `needed` one is violated,
    nothing can be registered.
    """

    name: str
    holds: str
    otherwise: str | None
    lost: str = ""
    needed: bool = False


_ALL = (
    Assumption(
        "written-back metadata",
        "ingestion preserves metadata that were written meanwhile",
        "facts are written as marks, which an older copy cannot undo",
    ),
    Assumption(
        "filled-in fields",
        "ingestion fills no field of a dataset",
        "a result keeps the facts of its registration",
    ),
    Assumption(
        CLOCK_IDS,
        "a dataset gets the id that a client made from the clock",
        "datasets are found by the keyword recipe:ID",
        "ids are not known in advance, so results wait for the service",
    ),
    Assumption(
        DERIVED_IDS,
        "a dataset gets the id that its recipe gives, with a time of choice",
        "datasets are found by the keyword recipe:ID",
        "equal results have other ids than elsewhere, and wait for the service before they are used",
    ),
    Assumption(
        TAKEN_IDS,
        "a second dataset with the same id is refused, and the first one stays unchanged",
        "each id is looked up before its dataset is made, which takes one more call",
        "two machines that register the same result at once may overwrite each other's fields",
    ),
    Assumption(
        "first metadata",
        "existing metadata are replaced only on request (409)",
        None,
        "nothing can be registered",
        needed=True,
    ),
    Assumption(
        "merged metadata",
        "new metadata are merged, and the answer has all of them",
        None,
        "nothing can be registered",
        needed=True,
    ),
    Assumption(
        DATES,
        "modification_time moves when metadata, keywords, files or links change",
        "projects are listed completely each time",
        "changes by others appear later",
    ),
    Assumption(
        COLONS,
        "keywords may hold `:` and 40 characters",
        "keywords are written with `_` in place of `:`",
        "they look different on Crucible's own pages",
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
        "an account may delete the files that it registered",
        None,
        "an unfinished registration cannot be completed with other files",
    ),
    Assumption(
        "immediate lists",
        "a new dataset is in lists at once",
        "datasets are also looked up by their ids",
        "other machines see results later",
    ),
    Assumption("pages of 1000", "lists give up to 1000 datasets at once", "several smaller pages are read"),
    Assumption(
        "lists with metadata",
        "lists hold metadata and links of each dataset",
        None,
        "results of others are found only by id, and lists and checks show nothing",
    ),
    Assumption(
        REVISIONS,
        "answers carry Crucible-Revision, which only the embedded Crucible does",
        "the results of a pipeline are listed",
    ),
    Assumption(
        GRAPHS,
        "entity_graph_cte/MFID returns connected datasets",
        "lineages are assembled from the links of whole projects",
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
        "too many calls are answered with 429 and the time to wait",
        "waits between tries double",
    ),
)
ASSUMPTIONS = {one.name: one for one in _ALL}


@dataclass(frozen=True)
class Observation:
    """Observation of an assumption, by a `run` or by `doctor`. `holds` is None if the test was impossible."""

    name: str
    holds: bool | None
    seen: str
    by: str
    at: str

    @property
    def is_missing(self) -> bool:
        """Whether it is violated and has no fallback."""
        return self.holds is False and ASSUMPTIONS[self.name].otherwise is None

    def to_json(self) -> dict[str, object]:
        """Return the observation as JSON, with its consequences."""
        assumed = ASSUMPTIONS[self.name]
        used = assumed.otherwise if self.holds is False else None
        lost = assumed.lost if self.holds is False else ""
        return {**asdict(self), "tried": assumed.holds, "fallback": used, "lost": lost, "missing": self.is_missing}


class ServiceProfile:
    """Observations of one service. Thread-safe. `read` returns earlier ones, `write` stores new ones.

    Without an observation `holds` returns None, or True for the embedded Crucible (`is_ours`).
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
        self._under_test: set[str] = set()  # by a thread of this process
        self._observations: dict[str, Observation] | None = None

    def findings(self) -> list[Observation]:
        """Return all observations, in the order of the assumptions."""
        observed = self._observed()
        return [observed[name] for name in ASSUMPTIONS if name in observed]

    def holds(self, name: str) -> bool | None:
        """Return whether the service satisfies an assumption; None if that is unknown."""
        observation = self._observed().get(name)
        if observation is not None and observation.holds is not None:
            if observation.holds or datetime.now(UTC) - utc(observation.at) < LASTS:
                return observation.holds
            return None
        return True if self._is_ours else None

    def seen(self, name: str) -> str:
        """Return the first word of the observation of an assumption that holds; empty without one."""
        observation = self._observed().get(name)
        return observation.seen.partition(" ")[0] if observation and observation.holds else ""

    @property
    def accepts_client_ids(self) -> bool:
        """Whether the service is known to give datasets the ids derived from their recipes."""
        return self.holds(DERIVED_IDS) is True

    def note(self, name: str, holds: bool | None, seen: str, *, by: str = "run") -> None:
        """Store an observation. The first one of a violated assumption is logged, with what is lost."""
        with self._lock:
            observed = self._observed()
            before = self.holds(name)
            is_known = before is holds and (name in observed or self._is_ours)
            if by == "run" and is_known and name != LINKS:  # what was seen of links names their host
                return
            observation = Observation(
                name, holds, " ".join(seen.split())[:300], by, datetime.now(UTC).isoformat(timespec="seconds")
            )
            observed[name] = observation
            self._write(observation)
            self._news.notify_all()
        assumed = ASSUMPTIONS[name]
        if by == "run" and holds is False and assumed.otherwise and assumed.lost:
            log.warning(
                "this Crucible violates an assumption (%s: %s): %s; %s",
                name, observation.seen, assumed.otherwise, assumed.lost,
            )  # fmt: skip

    def require_usable(self) -> None:
        """Raise RefusedError if a needed assumption is violated, without which nothing can be registered."""
        for observation in self.findings():
            if ASSUMPTIONS[observation.name].needed and self.holds(observation.name) is False:
                raise RefusedError(
                    f"this Crucible cannot be used: {ASSUMPTIONS[observation.name].holds} ({observation.name}), but "
                    f"{observation.seen}; nothing was created. Once that has changed, test it with: "
                    "crucible-lineage doctor"
                )

    @contextmanager
    def first(self, name: str) -> Iterator[None]:
        """Let other threads wait until an assumption was tested, or this block has ended."""
        with self._news:
            while self.holds(name) is None and name in self._under_test:
                self._news.wait()
            tries = self.holds(name) is None
            if tries:
                self._under_test.add(name)
        try:
            yield
        finally:
            if tries:
                with self._news:
                    self._under_test.discard(name)
                    self._news.notify_all()

    def _observed(self) -> dict[str, Observation]:
        with self._lock:
            if self._observations is None:
                self._observations = {one.name: one for one in self._read() if one.name in ASSUMPTIONS}
            return self._observations
