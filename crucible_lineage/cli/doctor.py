"""`doctor`: test on a scratch project what crucible-lineage needs of a Crucible service.

Late lists, 429, pages of any size and metadata that an ingestion writes back are borne, so they are not tested; it is
said how late a list was. The datasets made for the tests are listed, and their deletion is requested.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import click

from crucible_lineage.ask.answer import Done, in_columns
from crucible_lineage.ask.question import BEFORE, option
from crucible_lineage.cli.asking import act
from crucible_lineage.errors import (
    FAILURE,
    TRANSIENT,
    ChecksumError,
    ConflictError,
    CrucibleError,
    ForbiddenError,
    NotFoundError,
    RefusedError,
)
from crucible_lineage.ids import derive_mfid, new_mfid
from crucible_lineage.lineage.model import DOUBTFUL, RAW
from crucible_lineage.refs import DERIVED
from crucible_lineage.session import Session
from crucible_lineage.standing.standings import standing_of
from crucible_lineage.statements.statements import HOLD, KEYWORD, REVOKE, About
from crucible_lineage.statements.stating import state

SMALL, LARGE = 1 << 20, 40 << 20
LATEST_S = 20.0  # chosen: lists that are later are as if they lacked it
TICK_S = 1.1  # a service may count whole seconds
THEN = datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC)  # any time long past
PROBE = "crucible_lineage_doctor"
MOST_SEEN = 500  # characters of what happened

NEEDS: Mapping[str, str] = {
    "own ids": "a dataset gets the id that the client chose, also one with a time of choice",
    "taken ids": "a second dataset with the same id is refused, and the first one stays unchanged",
    "first metadata": "existing metadata are replaced only on request (409)",
    "merged metadata": "new metadata are merged, and the answer has all of them",
    "free metadata": "metadata may have any keys, and 100 kB",
    "keywords": "keywords may have `:` and 40 characters, and lists find them",
    "uploads": "files of 1 MB and 40 MB arrive and come back with the same bytes",
    "empty files": "a file of 0 bytes can be uploaded",
    "file deletion": "an account may delete the files that it registered",
    "modification times": "modification_time moves when metadata or keywords change",
    "statements": "a hold counts at once, and no more when it is lifted",
    "lists with metadata": "lists have metadata and links of each dataset",
    "graphs": "entity_graph_cte/MFID returns connected datasets",
}
"""What a service has to do, by the name in tables."""

FOLLOWS: Mapping[str, str] = {
    "own ids": "runs are refused: a result is found again by its id",
    "taken ids": "two machines that make the same result may overwrite each other's",
    "first metadata": "runs are refused, or a record is overwritten by another one",
    "merged metadata": "runs are refused, or a mark replaces the record",
    "free metadata": "runs are refused: no record can be kept",
    "keywords": "runs are refused: neither results nor statements are found in lists",
    "uploads": "results with files wait for delivery",
    "empty files": "results with an empty file wait for delivery",
    "file deletion": "files of an interrupted registration stay",
    "modification times": "changes of others are noticed late",
    "statements": "holds do not stop runs of others",
    "lists with metadata": "results of other machines are made again",
    "graphs": "`lineage` is refused; runs are not concerned",
}
"""What follows where a service does not do it."""

Outcome = tuple[bool | None, str]  # whether a test was passed, None if it was impossible; and what happened
ANSWERS = {True: "yes", False: "NO", None: "?"}


@act("doctor", announced=BEFORE)
def doctor_command(
    session: Session, *, project: Annotated[str, option("A scratch project, in which the tests make datasets.")]
) -> Done:
    """Test whether a Crucible does what crucible-lineage needs.

    The tests make datasets in the project and send a file of 40 MB. At the end they request the deletion of everything
    that they made, and list it. Exit code 1 if the service does not do all that is needed.
    """
    session.ensure_project(project)
    with tempfile.TemporaryDirectory(prefix="crucible-lineage-doctor-") as folder:
        trial = _Trial(session, project, Path(folder))
        try:
            found = {name: trial.outcome(name) for name in NEEDS}
        finally:
            probes = trial.clear()
    tests = [{"name": name, "passed": passed, "seen": seen, "needed": NEEDS[name], "else": FOLLOWS[name]}
             for name, (passed, seen) in found.items()]  # fmt: skip
    rows = [(name, ANSWERS[passed], f"{seen}; needed: {NEEDS[name]}; else {FOLLOWS[name]}" if passed is False else seen)
            for name, (passed, seen) in found.items()]  # fmt: skip
    made = [f"  {probe['mfid']}  {probe['name']}  ({probe['deletion']})" for probe in probes]
    table = in_columns(("NEEDED", "PASSED", "WHAT HAPPENED"), rows, MOST_SEEN)
    lines = [*table, "made for this test; deletion requested:", *made]
    is_fit = all(passed is not False for passed, _ in found.values())  # as far as known
    return Done({"ok": is_fit, "service": tests, "made": probes}, lines, 0 if is_fit else FAILURE)


class _Trial:
    """The tests. Later ones use datasets of earlier ones."""

    def __init__(self, session: Session, project: str, folder: Path) -> None:
        self.session = session
        self.client = session.client
        self.project = project
        self.folder = folder
        self.names: dict[str, str] = {}
        self.child = ""
        self.keeps_ids = False
        self.plain = self._dataset("a dataset")  # whatever its id

    def outcome(self, name: str) -> Outcome:
        """Return whether the service does it, and what happened."""
        click.echo(f"trying: {name}", err=True)
        trial: Callable[[], Outcome] = getattr(self, f"_{name.replace(' ', '_')}")
        try:
            return trial()
        except (ConflictError, ForbiddenError, NotFoundError, RefusedError) as refusal:
            return False, f"refused: {_short(refusal)}"
        except TRANSIENT as error:  # the service is away or busy: unknown
            return None, _short(error)
        except ChecksumError as error:
            return False, _short(error)
        except (KeyError, TypeError, ValueError) as error:
            return False, f"unexpected answer ({type(error).__name__}: {error})"

    def clear(self) -> list[dict[str, str]]:
        """Request the deletion of all datasets that were made. Return them with the status of that request."""
        made = []
        for mfid, name in self.names.items():
            try:
                status = self.client.datasets.delete(mfid, "made by crucible-lineage doctor").status
            except CrucibleError as error:
                status = f"not requested: {_short(error)}"
            made.append({"mfid": mfid, "name": name, "deletion": status or "requested"})
        return made

    # Ids

    def _own_ids(self) -> Outcome:
        requested = derive_mfid({"kind": PROBE, "once": new_mfid()}, THEN)
        given = self._dataset("an id of a recipe", unique_id=requested, timestamp=THEN.isoformat())
        self.keeps_ids = given == requested
        return self.keeps_ids, f"{requested} was kept" if self.keeps_ids else f"{given} was given for {requested}"

    def _taken_ids(self) -> Outcome:
        if not self.keeps_ids:
            return None, "ids are not kept"
        try:
            again = self._dataset("the same id again", unique_id=self.plain)
        except (ConflictError, ForbiddenError, RefusedError) as refusal:
            return True, f"refused: {_short(refusal)}"
        return False, "answered as if it were new" if again == self.plain else f"a second dataset was made: {again}"

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
        self.client.datasets.add_keyword(self.plain, word)
        keywords = [keyword.keyword for keyword in self.client.datasets.get_keywords(self.plain)]
        if word not in keywords:
            return False, f"written as {keywords}"
        listed = self.client.datasets.list(keyword=word, project_id=self.project)
        found = self.plain in [dataset.unique_id for dataset in listed]
        return found, "kept and found" if found else "kept, but not found in lists"

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
            back_s = time.monotonic() - began - sent_s
            times.append(f"{size >> 20} MB sent in {sent_s:.1f} s and back in {back_s:.1f} s")
        return True, ", ".join(times)

    def _empty_files(self) -> Outcome:
        return self._file("empty.txt", b"").size == 0, "0 bytes were stored"

    def _file_deletion(self) -> Outcome:
        stored = self._file("to be deleted.txt", b"for a moment")
        self.client.files.delete(stored.mfid)
        left = [file.mfid for file in self.client.files.list(self.plain)]
        return stored.mfid not in left, "deleted" if stored.mfid not in left else "accepted, but it is still there"

    # Lists, links, graphs

    def _modification_times(self) -> Outcome:
        changes: dict[str, Callable[[], object]] = {
            "metadata": lambda: self.client.metadata.merge(self.plain, {"date": 1}),
            "keywords": lambda: self.client.datasets.add_keyword(self.plain, "dated"),
        }
        still = []
        for kind, change in changes.items():
            before = self.client.datasets.get(self.plain).modification_time
            time.sleep(TICK_S)
            with suppress(RefusedError):  # another test reports it
                change()
                if self.client.datasets.get(self.plain).modification_time == before:
                    still.append(kind)
        return not still, f"not updated with {', '.join(still)}" if still else "updated with metadata and keywords"

    def _statements(self) -> Outcome:
        """Hold a dataset, see that plans and lists would count it, and lift the hold."""
        if not self.keeps_ids or PROBE not in (self.client.metadata.get(self.plain) or {}):
            return None, "ids or metadata are not kept"
        before = self._standing()
        hold = self._state(HOLD, About((self.plain,)))
        began, counted = time.monotonic(), self._standing()
        while is_late := not any(dataset.unique_id == hold for dataset in self.client.datasets.iter(keyword=KEYWORD)):
            if time.monotonic() - began > LATEST_S:
                break
            time.sleep(TICK_S)
        late = f"lists {'lacked' if is_late else 'had'} it {time.monotonic() - began:.1f} s later"
        self._state(REVOKE, About(), hold)
        after = self._standing()
        is_counted = counted == (DOUBTFUL, True) and before == after == (RAW, False)
        return is_counted, f"{'counted at once' if is_counted else 'it did not count as it should'}; {late}"

    def _state(self, verb: str, about: About, *revoked: str) -> str:
        outcome = state(
            self.session, self.project, verb, about, why="a test of crucible-lineage doctor", revokes=revoked
        )
        self.names[outcome.statement.mfid] = f"crucible-lineage doctor: {verb}"
        return outcome.statement.mfid

    def _standing(self) -> tuple[str, bool]:
        """Return where the plain dataset stands, and whether a plan would refuse it."""
        found = self.client.datasets.get(self.plain, include_metadata=True, include_links=True)
        stands = standing_of(self.session, found).state
        return stands, bool(self.session.effects.reasons([self.plain], "", self.project))

    def _lists_with_metadata(self) -> Outcome:
        self._child()
        listed = self.client.datasets.iter(project_id=self.project, include_metadata=True, include_links=True)
        found = next((dataset for dataset in listed if dataset.unique_id == self.plain), None)
        if found is None or not self.client.metadata.get(self.plain):
            return None, "the dataset is not listed yet, or has no metadata"
        parts = {"metadata": found.scientific_metadata, "links": found.links}
        missing = [name for name, value in parts.items() if not value]
        return not missing, f"without {', '.join(missing)}" if missing else "both are listed"

    def _graphs(self) -> Outcome:
        child = self._child()
        graph = self.client.graphs.get(self.plain, recursive=True)
        found = any((edge.get("source"), edge.get("target")) == (self.plain, child) for edge in graph["edges"])
        return found, f"{len(graph['nodes'])} nodes, {len(graph['edges'])} edges"

    # Making datasets and files

    def _child(self) -> str:
        """Return a dataset that is linked as a child of the plain one."""
        if not self.child:
            self.child = self._dataset("a child")
            self.client.datasets.link_parent_child(self.plain, self.child, DERIVED)
        return self.child

    def _dataset(self, name: str, **fields: Any) -> str:
        full_name = f"crucible-lineage doctor: {name}"
        mfid = self.client.datasets.create({"dataset_name": full_name, "project_id": self.project, **fields}).dsid
        self.names.setdefault(mfid, full_name)
        return mfid

    def _file(self, name: str, content: bytes) -> Any:
        path = self.folder / name
        path.write_bytes(content)
        return self.client.files.upload(self.plain, path).file


def _short(error: BaseException) -> str:
    return str(error).partition("\n")[0]
