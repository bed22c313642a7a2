"""What a service does, tried on a scratch project: each assumption of `crucible_lineage.service`, once.

All that is made for it is named, and its deletion asked for. What is found is kept, and runs go by it.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from crucible_lineage.client import CrucibleClient, RetryPolicy
from crucible_lineage.client.transfer.storage import is_private
from crucible_lineage.errors import (
    TRANSIENT,
    ConflictError,
    CrucibleError,
    ForbiddenError,
    NotFoundError,
    RateLimitedError,
    RefusedError,
    ServerError,
)
from crucible_lineage.ids import derive_mfid, new_mfid
from crucible_lineage.service import (
    CLOCK_IDS,
    COLONS,
    DATES,
    DERIVED_IDS,
    FILES_BY_HASH,
    FREE_METADATA,
    GRAPHS,
    LINKS,
    REVISIONS,
    SIGNED,
    TAKEN_IDS,
    Observation,
)
from crucible_lineage.session import Session

SMALL, LARGE = 1 << 20, 40 << 20
CALLS = 40  # chosen: a burst that a limited service notices and a shared one bears
LISTED_WITHIN_S = 10.0
THEN = datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC)  # a time of choice, long past
PROBE = "crucible_lineage_doctor"

Outcome = tuple[bool | None, str]


@dataclass(frozen=True)
class Probe:
    """A dataset that was made to try something, and what became of asking for its deletion."""

    mfid: str
    name: str
    deletion: str

    def to_json(self) -> dict[str, str]:
        """Return the dataset as programs get it."""
        return asdict(self)


@dataclass(frozen=True)
class Examination:
    """What was found of each assumption, and all that was made for that."""

    findings: tuple[Observation, ...]
    made: tuple[Probe, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is missing that nothing stands in for."""
        return not any(found.is_missing for found in self.findings)


def examine(
    session: Session, project: str, *, watch_s: float = 60.0, tell: Callable[[str], object] = lambda _: None
) -> Examination:
    """Try every assumption on a project, and keep what is found.

    Ingestion is watched for `watch_s`; `tell` is given what is tried next. Raises InputError, before anything is made,
    if there is no such project, and what the service answers if no dataset can be made there at all.
    """
    if session.client.projects.find(project) is None:
        session.ensure_project(project)  # which says what to do
    service = session.client.service
    with tempfile.TemporaryDirectory(prefix="crucible-lineage-doctor-") as folder:
        tried = _Trial(session.client, project, Path(folder), watch_s)
        made: tuple[Probe, ...] = ()
        try:
            for name, (holds, seen) in tried.outcomes(tell):
                service.note(name, holds, seen, by="doctor")
        finally:
            made = tried.clear()
    return Examination(tuple(service.findings()), made)


class _Trial:
    """The trials, in order; later ones use what earlier ones have made."""

    def __init__(self, client: CrucibleClient, project: str, folder: Path, watch_s: float) -> None:
        self.client = client
        self.project = project
        self.folder = folder
        self.watch_s = watch_s
        self.names: dict[str, str] = {}
        self.plain = ""  # a dataset that is there, whatever ids it was given
        self.child = ""
        self.is_kept = False

    def outcomes(self, tell: Callable[[str], object]) -> Iterator[tuple[str, Outcome]]:
        """Yield each assumption with whether it holds and what happened."""
        tell(CLOCK_IDS)
        yield CLOCK_IDS, self._ids_of_version_7()
        trials: tuple[tuple[str, Callable[[], Outcome]], ...] = (
            (DERIVED_IDS, self._ids_of_version_8),
            (TAKEN_IDS, self._taken_ids),
            ("first metadata", self._first_metadata),
            ("merged metadata", self._merged_metadata),
            (FREE_METADATA, self._free_metadata),
            (COLONS, self._keywords),
            ("uploads", self._uploads),
            (SIGNED, self._signed),
            ("empty files", self._empty_files),
            (FILES_BY_HASH, self._files_by_hash),
            (LINKS, self._hosts),
            ("file deletion", self._file_deletion),
            (DATES, self._dates),
            ("immediate lists", self._lists),
            ("pages of 1000", self._pages),
            ("lists with metadata", self._lists_with_metadata),
            (REVISIONS, self._revisions),
            (GRAPHS, self._graphs),
            ("Retry-After", self._rate),
        )
        for name, trial in trials:
            tell(name)
            yield name, _outcome_of(trial)
        tell("ingestion")
        written, filled = self._ingestion()
        yield "written-back metadata", written
        yield "filled-in fields", filled

    def clear(self) -> tuple[Probe, ...]:
        """Ask for the deletion of all that was made. Returns what that is."""
        made = []
        for mfid, name in self.names.items():
            try:
                said = self.client.datasets.delete(mfid, "made by crucible-lineage doctor").status
            except CrucibleError as error:
                said = f"not asked for: {_short(error)}"
            made.append(Probe(mfid, name, said or "asked for"))
        return tuple(made)

    # Ids

    def _ids_of_version_7(self) -> Outcome:
        wanted = new_mfid()
        try:
            self.plain = self._dataset("a dataset", unique_id=wanted)
        except (ConflictError, RefusedError) as refusal:
            self.plain = self._dataset("a dataset", unique_id=None)
            return False, f"refused: {_short(refusal)}; without an id it is {self.plain}"
        self.is_kept = self.plain == wanted
        return self.is_kept, f"{wanted} was kept" if self.is_kept else f"{self.plain} was given in place of {wanted}"

    def _ids_of_version_8(self) -> Outcome:
        wanted = derive_mfid({"kind": PROBE, "once": new_mfid()}, THEN)
        got = self._dataset("an id of a recipe", unique_id=wanted, timestamp=THEN.isoformat())
        said = f"{wanted}, of {THEN:%Y-%m-%d}, was kept" if got == wanted else f"{got} was given in place of {wanted}"
        return got == wanted, said

    def _taken_ids(self) -> Outcome:
        if not self.is_kept:
            return None, "ids are not kept"
        before = self.client.datasets.get(self.plain).dataset_name
        try:
            again = self._dataset("the same id again", unique_id=self.plain)
        except (ConflictError, ForbiddenError, RefusedError) as refusal:
            return True, f"refused: {_short(refusal)}"
        after = self.client.datasets.get(self.plain).dataset_name
        if again != self.plain:
            return False, f"a second dataset was made: {again}"
        return False, "answered as if it were new" if after == before else "the dataset that was there is overwritten"

    # Metadata and keywords

    def _first_metadata(self) -> Outcome:
        self.client.metadata.create(self.plain, {"first": 1})
        try:
            self.client.metadata.create(self.plain, {"second": 2})
        except ConflictError as refusal:
            return True, f"refused: {_short(refusal)}"
        return False, f"written all the same; there is now {sorted(self.client.metadata.get(self.plain) or {})}"

    def _merged_metadata(self) -> Outcome:
        self.client.metadata.merge(self.plain, {"inner": {"x": 1}})
        answer = self.client.metadata.merge(self.plain, {"inner": {"y": 2}})
        there = self.client.metadata.get(self.plain) or {}
        how = "objects are merged key by key" if there.get("inner") == {"x": 1, "y": 2} else "objects are replaced"
        if "first" not in there:
            return False, f"what was there is gone; left are {sorted(there)}"
        return answer == there, how if answer == there else f"{how}, and the answer is not what is there"

    def _free_metadata(self) -> Outcome:
        wanted = {PROBE: {"nested": [{"deep": [1.5, None, "ü"]}]}, "text": "x" * 100_000}
        self.client.metadata.merge(self.plain, wanted)
        there = self.client.metadata.get(self.plain) or {}
        kept = all(there.get(key) == value for key, value in wanted.items())
        return kept, "100 kB came back as they were" if kept else "what came back is not what was written"

    def _keywords(self) -> Outcome:
        word = "pipeline:" + "doctor" * 5 + "a"  # 40 signs
        path = f"/datasets/{self.plain}/keywords"
        self.client.request("POST", path, params={"keyword": word})
        said = self.client.request("GET", path)
        words = [one if isinstance(one, str) else one.get("keyword") for one in said or ()]
        found = self.client.request(
            "GET", "/datasets", params={"keyword": word, "project_id": self.project, "limit": 9}
        )
        listed = [one["unique_id"] for one in found["items"]]
        if word not in words:
            return False, f"written as {words}"
        return self.plain in listed, "kept and found" if self.plain in listed else "kept, and not found in lists"

    # Files

    def _uploads(self) -> Outcome:
        said = []
        for size in (SMALL, LARGE):
            content = os.urandom(size)
            began = time.monotonic()
            stored = self._file(f"{size >> 20} MB.bin", content)
            sent_s = time.monotonic() - began
            if self.client.files.download_bytes(stored) != content:
                return False, f"{size >> 20} MB came back with other bytes"
            said.append(f"{size >> 20} MB sent in {sent_s:.1f} s and back in {time.monotonic() - began - sent_s:.1f} s")
        return True, ", ".join(said)

    def _signed(self) -> Outcome:
        path = self._written("signed.bin", os.urandom(SMALL))
        try:
            self.client.files.upload(self.plain, path, protocol="signed")
        except ServerError as error:
            return False, _short(error)
        return True, "1 MB sent in parts"

    def _empty_files(self) -> Outcome:
        stored = self._file("empty.txt", b"")
        body = {"filename": "empty too.txt", "size": 0, "sha256_hash": stored.sha256_hash}
        path = f"/datasets/{self.plain}/upload/multipart/initiate"
        try:
            opened = self.client.request("POST", path, body=body, headers={"Idempotency-Key": new_mfid()})
            signed = "signed: taken"
            if isinstance(opened, dict) and opened.get("upload_id"):
                with suppress(CrucibleError):
                    self.client.request("DELETE", f"/datasets/{self.plain}/upload/multipart/{opened['upload_id']}")
        except CrucibleError as refusal:
            signed = f"signed: {_short(refusal)}"
        return stored.size == 0, f"resumable: taken; {signed}"

    def _files_by_hash(self) -> Outcome:
        (file, *_) = self.client.files.list(self.plain)
        params = {"sha256_hash": file.sha256_hash, "limit": 100}
        found = self.client.request("GET", "/files", params=params)["items"]
        is_found = any(one.get("mfid") == file.mfid and one.get("dataset_mfid") == self.plain for one in found)
        others = [one for one in found if one.get("sha256_hash") != file.sha256_hash]
        return is_found and not others, f"{len(found)} found, {len(others)} of them of another hash"

    def _hosts(self) -> Outcome:
        (file, *_) = (one for one in self.client.files.list(self.plain) if one.size)
        link, api = self.client.files.download_link(file.mfid), self.client.api_url
        where = "a private address" if is_private(link) else "a public address"
        said = f"{urlsplit(link).hostname} is {where}; the service is at {urlsplit(api).hostname}"
        return is_private(api) or not is_private(link), said

    def _file_deletion(self) -> Outcome:
        stored = self._file("to be deleted.txt", b"for a moment")
        self.client.files.delete(stored.mfid)
        left = [one.mfid for one in self.client.files.list(self.plain)]
        return stored.mfid not in left, "deleted" if stored.mfid not in left else "answered, and it is still there"

    # Lists, links, graphs

    def _dates(self) -> Outcome:
        changes: dict[str, Callable[[], object]] = {
            "metadata": lambda: self.client.metadata.merge(self.plain, {"date": 1}),
            "keywords": lambda: self.client.datasets.add_keyword(self.plain, "dated"),
            "files": lambda: self._file("dated.txt", b"dated"),
            "links": self._child,
        }
        moved: dict[str, bool] = {}
        for what, change in changes.items():
            before = self.client.datasets.get(self.plain).modification_time
            time.sleep(min(1.1, self.watch_s / 50))  # a service may count whole seconds
            with suppress(RefusedError):  # which another trial tells
                change()
                moved[what] = self.client.datasets.get(self.plain).modification_time != before
        yes, no = ([what for what, has in moved.items() if has is wanted] for wanted in (True, False))
        said = f"moves with {', '.join(yes) or 'nothing'}" + (f"; not with {', '.join(no)}" if no else "")
        tried = [moved[what] for what in ("metadata", "keywords") if what in moved]
        return (all(tried) if tried else None), said

    def _child(self) -> str:
        """A dataset that is linked below the plain one."""
        if not self.child:
            self.child = self._dataset("a child")
            self.client.datasets.link_parent_child(self.plain, self.child, "is_derived_from")
        return self.child

    def _lists(self) -> Outcome:
        began = time.monotonic()
        made = self._dataset(f"listed {new_mfid()}")
        while True:
            asked = time.monotonic() - began
            found = self.client.datasets.list(project_id=self.project, dataset_name=self._name_of(made))
            if made in [one.unique_id for one in found]:
                return asked < 1, "in the first list" if asked < 1 else f"after {asked:.1f} s"
            if asked > min(LISTED_WITHIN_S, self.watch_s):
                return False, f"not after {asked:.0f} s"
            time.sleep(0.5)

    def _pages(self) -> Outcome:
        page = self.client.request("GET", "/datasets", params={"project_id": self.project, "limit": 1000})
        given = page.get("limit", 1000)
        return given >= 1000, f"gives {given} at once"

    def _lists_with_metadata(self) -> Outcome:
        self._child()
        listed = self.client.datasets.iter(project_id=self.project, include_metadata=True, include_links=True)
        found = next((one for one in listed if one.unique_id == self.plain), None)
        if found is None or not self.client.metadata.get(self.plain):
            return None, "the dataset is not listed, or has nothing that could be"
        lacking = [what for what, has in (("metadata", found.scientific_metadata), ("links", found.links)) if not has]
        return not lacking, f"without {', '.join(lacking)}" if lacking else "both are there"

    def _revisions(self) -> Outcome:
        revision = self.client.datasets.changes(self.project, None, "dated").revision
        return bool(revision), f"Crucible-Revision: {revision}" if revision else "no such header"

    def _graphs(self) -> Outcome:
        child = self._child()
        graph = self.client.graphs.get(self.plain, recursive=True)
        found = any((edge.get("source"), edge.get("target")) == (self.plain, child) for edge in graph["edges"])
        return found, f"{len(graph['nodes'])} nodes, {len(graph['edges'])} edges"

    def _rate(self) -> Outcome:
        with self.client.another(RetryPolicy(attempts=1)) as once, ThreadPoolExecutor(8) as pool:

            def ask(_: int) -> RateLimitedError | None:
                try:
                    once.account.whoami()
                except RateLimitedError as error:
                    return error
                return None

            refused = [error for error in pool.map(ask, range(CALLS)) if error]
        if not refused:
            return None, f"{CALLS} calls at once were all answered"
        when = [error.retry_after_s for error in refused if error.retry_after_s]
        return len(when) == len(refused), f"{len(refused)} of {CALLS} refused, {len(when)} of them with Retry-After"

    # Ingestion

    def _ingestion(self) -> tuple[Outcome, Outcome]:
        """Change metadata while a file is ingested, and look whether they stay."""
        try:
            return self._watched()
        except CrucibleError as error:
            failed = None, _short(error)
            return failed, failed

    def _watched(self) -> tuple[Outcome, Outcome]:
        client, mfid = self.client, self._dataset("ingested", measurement=None)
        client.metadata.merge(mfid, {PROBE: {"state": "before"}})
        stored = client.files.upload(
            mfid, self._written("spectrum.csv", b"# laser_nm: 633\nshift,counts\n1,2\n3,4\n")
        ).file
        before = client.datasets.get(mfid)
        request = client.ingestions.request(stored.mfid)
        time.sleep(min(0.2, self.watch_s / 10))
        client.metadata.merge(mfid, {PROBE: {"state": "after"}})
        began, ended_s, reverted_s = time.monotonic(), None, None
        while (since := time.monotonic() - began) < self.watch_s and reverted_s is None:
            if (client.metadata.get(mfid) or {}).get(PROBE) != {"state": "after"}:
                reverted_s = since
            if ended_s is None and not client.ingestions.get(request.id).is_open:
                ended_s = since
            if ended_s is not None and since > ended_s + min(5.0, self.watch_s / 4):
                break
            time.sleep(min(1.0, self.watch_s / 20))
        how = f"ended after {ended_s:.1f} s" if ended_s is not None else f"not ended after {self.watch_s:g} s"
        after = client.datasets.get(mfid)
        names = ("measurement", "data_type", "data_format", "instrument_name", "session_name", "timestamp")
        filled = [name for name in names if getattr(before, name) != getattr(after, name)]
        seen = None if ended_s is None else True
        written: Outcome = (False, f"undone after {reverted_s:.1f} s") if reverted_s is not None else (seen, how)
        return written, (False, f"filled {', '.join(filled)}") if filled else (seen, how)

    # What is made

    def _dataset(self, name: str, **fields: Any) -> str:
        named = self._name(name)
        given = {key: value for key, value in fields.items() if value is not None}
        if "unique_id" in fields and fields["unique_id"] is None:
            body = {"dataset_name": named, "project_id": self.project, "public": False}
            made = str(self.client.request("POST", "/datasets", body=body)["unique_id"])
        else:
            made = self.client.datasets.create({"dataset_name": named, "project_id": self.project, **given}).dsid
        self.names.setdefault(made, named)
        return made

    def _name(self, name: str) -> str:
        return f"crucible-lineage doctor: {name}"

    def _name_of(self, mfid: str) -> str:
        return self.names[mfid]

    def _file(self, name: str, content: bytes) -> Any:
        return self.client.files.upload(self.plain, self._written(name, content)).file

    def _written(self, name: str, content: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(content)
        return path


def _outcome_of(trial: Callable[[], Outcome]) -> Outcome:
    try:
        return trial()
    except (ConflictError, ForbiddenError, NotFoundError, RefusedError) as refusal:
        return False, f"refused: {_short(refusal)}"
    except TRANSIENT as error:  # the service is away or busy, which says nothing of what it does
        return (False if error.status == 501 else None), _short(error)
    except (KeyError, TypeError, ValueError) as error:
        return False, f"the answer is none that was expected ({type(error).__name__}: {error})"


def _short(error: BaseException) -> str:
    return str(error).partition("\n")[0]
