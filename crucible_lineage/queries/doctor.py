"""Test each assumption of `crucible_lineage.service` about a service once, on a scratch project.

The datasets made for this are listed, and their deletion is requested. The findings are stored, and runs follow them.
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
CALLS = 40  # a burst that a rate limit notices and a shared service bears
LISTED_WITHIN_S = 10.0
THEN = datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC)  # any time long past
PROBE = "crucible_lineage_doctor"

Outcome = tuple[bool | None, str]


@dataclass(frozen=True)
class Probe:
    """A dataset that was made for a test, and the status of the request for its deletion."""

    mfid: str
    name: str
    deletion: str

    def to_json(self) -> dict[str, str]:
        """Return the dataset for `doctor --json`."""
        return asdict(self)


@dataclass(frozen=True)
class Examination:
    """The finding about each assumption, and all datasets made for the tests."""

    findings: tuple[Observation, ...]
    made: tuple[Probe, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is missing that has no substitute."""
        return not any(found.is_missing for found in self.findings)


def examine(
    session: Session, project: str, *, watch_s: float = 60.0, tell: Callable[[str], object] = lambda _: None
) -> Examination:
    """Test every assumption on a project, and store the findings.

    Ingestion is watched for `watch_s` seconds; `tell` gets the name of the next test. Raises InputError, before
    anything is made, if there is no such project, and the service's error if no dataset can be made there.
    """
    if session.client.projects.find(project) is None:
        session.ensure_project(project)  # its error says what to do
    service = session.client.service
    with tempfile.TemporaryDirectory(prefix="crucible-lineage-doctor-") as folder:
        trial = _Trial(session.client, project, Path(folder), watch_s)
        made: tuple[Probe, ...] = ()
        try:
            for name, (holds, seen) in trial.outcomes(tell):
                service.note(name, holds, seen, by="doctor")
        finally:
            made = trial.clear()
    return Examination(tuple(service.findings()), made)


class _Trial:
    """The tests in order. Later ones use datasets of earlier ones."""

    def __init__(self, client: CrucibleClient, project: str, folder: Path, watch_s: float) -> None:
        self.client = client
        self.project = project
        self.folder = folder
        self.watch_s = watch_s
        self.names: dict[str, str] = {}
        self.plain = ""  # a dataset that exists, whatever its id
        self.child = ""
        self.keeps_ids = False

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
        """Request the deletion of all datasets that were made, and return them."""
        made = []
        for mfid, name in self.names.items():
            try:
                status = self.client.datasets.delete(mfid, "made by crucible-lineage doctor").status
            except CrucibleError as error:
                status = f"not requested: {_short(error)}"
            made.append(Probe(mfid, name, status or "requested"))
        return tuple(made)

    # Ids

    def _ids_of_version_7(self) -> Outcome:
        requested = new_mfid()
        try:
            self.plain = self._dataset("a dataset", unique_id=requested)
        except (ConflictError, RefusedError) as refusal:
            self.plain = self._dataset("a dataset", unique_id=None)
            return False, f"refused: {_short(refusal)}; without an id it is {self.plain}"
        self.keeps_ids = self.plain == requested
        change = f"{self.plain} was assigned in place of {requested}"
        return self.keeps_ids, f"{requested} was kept" if self.keeps_ids else change

    def _ids_of_version_8(self) -> Outcome:
        requested = derive_mfid({"kind": PROBE, "once": new_mfid()}, THEN)
        assigned = self._dataset("an id of a recipe", unique_id=requested, timestamp=THEN.isoformat())
        if assigned == requested:
            return True, f"{requested}, of {THEN:%Y-%m-%d}, was kept"
        return False, f"{assigned} was assigned in place of {requested}"

    def _taken_ids(self) -> Outcome:
        if not self.keeps_ids:
            return None, "ids are not kept"
        before = self.client.datasets.get(self.plain).dataset_name
        try:
            again = self._dataset("the same id again", unique_id=self.plain)
        except (ConflictError, ForbiddenError, RefusedError) as refusal:
            return True, f"refused: {_short(refusal)}"
        after = self.client.datasets.get(self.plain).dataset_name
        if again != self.plain:
            return False, f"a second dataset was made: {again}"
        return False, "answered as if it were new" if after == before else "the existing dataset was overwritten"

    # Metadata and keywords

    def _first_metadata(self) -> Outcome:
        self.client.metadata.create(self.plain, {"first": 1})
        try:
            self.client.metadata.create(self.plain, {"second": 2})
        except ConflictError as refusal:
            return True, f"refused: {_short(refusal)}"
        return False, f"written anyway; the keys are now {sorted(self.client.metadata.get(self.plain) or {})}"

    def _merged_metadata(self) -> Outcome:
        self.client.metadata.merge(self.plain, {"inner": {"x": 1}})
        answer = self.client.metadata.merge(self.plain, {"inner": {"y": 2}})
        stored = self.client.metadata.get(self.plain) or {}
        rule = "objects are merged key by key" if stored.get("inner") == {"x": 1, "y": 2} else "objects are replaced"
        if "first" not in stored:
            return False, f"earlier keys are lost; the keys are now {sorted(stored)}"
        return answer == stored, rule if answer == stored else f"{rule}, but the answer differs from what is stored"

    def _free_metadata(self) -> Outcome:
        written = {PROBE: {"nested": [{"deep": [1.5, None, "ü"]}]}, "text": "x" * 100_000}
        self.client.metadata.merge(self.plain, written)
        stored = self.client.metadata.get(self.plain) or {}
        is_equal = all(stored.get(key) == value for key, value in written.items())
        return is_equal, "100 kB came back unchanged" if is_equal else "what came back differs from what was written"

    def _keywords(self) -> Outcome:
        word = "pipeline:" + "doctor" * 5 + "a"  # 40 characters
        path = f"/datasets/{self.plain}/keywords"
        self.client.request("POST", path, params={"keyword": word})
        answer = self.client.request("GET", path)
        keywords = [one if isinstance(one, str) else one.get("keyword") for one in answer or ()]
        found = self.client.request(
            "GET", "/datasets", params={"keyword": word, "project_id": self.project, "limit": 9}
        )
        listed = [one["unique_id"] for one in found["items"]]
        if word not in keywords:
            return False, f"written as {keywords}"
        return self.plain in listed, "kept and found" if self.plain in listed else "kept, but not found in lists"

    # Files

    def _uploads(self) -> Outcome:
        times = []
        for size in (SMALL, LARGE):
            content = os.urandom(size)
            began = time.monotonic()
            stored = self._file(f"{size >> 20} MB.bin", content)
            sent_s = time.monotonic() - began
            if self.client.files.download_bytes(stored) != content:
                return False, f"{size >> 20} MB came back with other bytes"
            times.append(
                f"{size >> 20} MB sent in {sent_s:.1f} s and back in {time.monotonic() - began - sent_s:.1f} s"
            )
        return True, ", ".join(times)

    def _signed(self) -> Outcome:
        path = self._local_file("signed.bin", os.urandom(SMALL))
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
            signed = "signed: accepted"
            if isinstance(opened, dict) and opened.get("upload_id"):
                with suppress(CrucibleError):
                    self.client.request("DELETE", f"/datasets/{self.plain}/upload/multipart/{opened['upload_id']}")
        except CrucibleError as refusal:
            signed = f"signed: {_short(refusal)}"
        return stored.size == 0, f"resumable: accepted; {signed}"

    def _files_by_hash(self) -> Outcome:
        (file, *_) = self.client.files.list(self.plain)
        params = {"sha256_hash": file.sha256_hash, "limit": 100}
        found = self.client.request("GET", "/files", params=params)["items"]
        is_found = any(one.get("mfid") == file.mfid and one.get("dataset_mfid") == self.plain for one in found)
        others = [one for one in found if one.get("sha256_hash") != file.sha256_hash]
        return is_found and not others, f"{len(found)} found, {len(others)} of them with another hash"

    def _hosts(self) -> Outcome:
        (file, *_) = (one for one in self.client.files.list(self.plain) if one.size)
        link, api = self.client.files.download_link(file.mfid), self.client.api_url
        kind = "a private address" if is_private(link) else "a public address"
        text = f"{urlsplit(link).hostname} is {kind}; the service is at {urlsplit(api).hostname}"
        return is_private(api) or not is_private(link), text

    def _file_deletion(self) -> Outcome:
        stored = self._file("to be deleted.txt", b"for a moment")
        self.client.files.delete(stored.mfid)
        left = [one.mfid for one in self.client.files.list(self.plain)]
        return stored.mfid not in left, "deleted" if stored.mfid not in left else "accepted, but it is still there"

    # Lists, links, graphs

    def _dates(self) -> Outcome:
        changes: dict[str, Callable[[], object]] = {
            "metadata": lambda: self.client.metadata.merge(self.plain, {"date": 1}),
            "keywords": lambda: self.client.datasets.add_keyword(self.plain, "dated"),
            "files": lambda: self._file("dated.txt", b"dated"),
            "links": self._child,
        }
        updated: dict[str, bool] = {}
        for kind, change in changes.items():
            before = self.client.datasets.get(self.plain).modification_time
            time.sleep(min(1.1, self.watch_s / 50))  # a service may count whole seconds
            with suppress(RefusedError):  # another test reports it
                change()
                updated[kind] = self.client.datasets.get(self.plain).modification_time != before
        yes, no = ([kind for kind, is_updated in updated.items() if is_updated is value] for value in (True, False))
        text = f"updated with {', '.join(yes) or 'nothing'}" + (f"; not with {', '.join(no)}" if no else "")
        tested = [updated[kind] for kind in ("metadata", "keywords") if kind in updated]
        return (all(tested) if tested else None), text

    def _child(self) -> str:
        """Return a dataset that is linked as a child of the plain one."""
        if not self.child:
            self.child = self._dataset("a child")
            self.client.datasets.link_parent_child(self.plain, self.child, "is_derived_from")
        return self.child

    def _lists(self) -> Outcome:
        began = time.monotonic()
        made = self._dataset(f"listed {new_mfid()}")
        while True:
            waited_s = time.monotonic() - began
            found = self.client.datasets.list(project_id=self.project, dataset_name=self.names[made])
            if made in [one.unique_id for one in found]:
                return waited_s < 1, "in the first list" if waited_s < 1 else f"after {waited_s:.1f} s"
            if waited_s > min(LISTED_WITHIN_S, self.watch_s):
                return False, f"not after {waited_s:.0f} s"
            time.sleep(0.5)

    def _pages(self) -> Outcome:
        page = self.client.request("GET", "/datasets", params={"project_id": self.project, "limit": 1000})
        limit = page.get("limit", 1000)
        return limit >= 1000, f"returns {limit} at once"

    def _lists_with_metadata(self) -> Outcome:
        self._child()
        listed = self.client.datasets.iter(project_id=self.project, include_metadata=True, include_links=True)
        found = next((one for one in listed if one.unique_id == self.plain), None)
        if found is None or not self.client.metadata.get(self.plain):
            return None, "the dataset is not listed, or has no metadata"
        missing = [
            name for name, value in (("metadata", found.scientific_metadata), ("links", found.links)) if not value
        ]
        return not missing, f"without {', '.join(missing)}" if missing else "both are listed"

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
        waits = [error.retry_after_s for error in refused if error.retry_after_s]
        return len(waits) == len(refused), f"{len(refused)} of {CALLS} refused, {len(waits)} of them with Retry-After"

    # Ingestion

    def _ingestion(self) -> tuple[Outcome, Outcome]:
        """Change metadata while a file is ingested, and check that the change stays."""
        try:
            return self._watch_ingestion()
        except CrucibleError as error:
            failed = None, _short(error)
            return failed, failed

    def _watch_ingestion(self) -> tuple[Outcome, Outcome]:
        client, mfid = self.client, self._dataset("ingested", measurement=None)
        client.metadata.merge(mfid, {PROBE: {"state": "before"}})
        stored = client.files.upload(
            mfid, self._local_file("spectrum.csv", b"# laser_nm: 633\nshift,counts\n1,2\n3,4\n")
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
        ending = f"ended after {ended_s:.1f} s" if ended_s is not None else f"not ended after {self.watch_s:g} s"
        after = client.datasets.get(mfid)
        names = ("measurement", "data_type", "data_format", "instrument_name", "session_name", "timestamp")
        filled = [name for name in names if getattr(before, name) != getattr(after, name)]
        holds = None if ended_s is None else True
        written: Outcome = (False, f"undone after {reverted_s:.1f} s") if reverted_s is not None else (holds, ending)
        return written, (False, f"filled {', '.join(filled)}") if filled else (holds, ending)

    # Making datasets and files

    def _dataset(self, name: str, **fields: Any) -> str:
        full_name = f"crucible-lineage doctor: {name}"
        present = {key: value for key, value in fields.items() if value is not None}
        if "unique_id" in fields and fields["unique_id"] is None:
            body = {"dataset_name": full_name, "project_id": self.project, "public": False}
            mfid = str(self.client.request("POST", "/datasets", body=body)["unique_id"])
        else:
            mfid = self.client.datasets.create({"dataset_name": full_name, "project_id": self.project, **present}).dsid
        self.names.setdefault(mfid, full_name)
        return mfid

    def _file(self, name: str, content: bytes) -> Any:
        return self.client.files.upload(self.plain, self._local_file(name, content)).file

    def _local_file(self, name: str, content: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(content)
        return path


def _outcome_of(trial: Callable[[], Outcome]) -> Outcome:
    try:
        return trial()
    except (ConflictError, ForbiddenError, NotFoundError, RefusedError) as refusal:
        return False, f"refused: {_short(refusal)}"
    except TRANSIENT as error:  # the service is away or busy: unknown
        return (False if error.status == 501 else None), _short(error)
    except (KeyError, TypeError, ValueError) as error:
        return False, f"unexpected answer ({type(error).__name__}: {error})"


def _short(error: BaseException) -> str:
    return str(error).partition("\n")[0]
