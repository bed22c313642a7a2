"""The journal: the results of this data folder that are not delivered yet, and the history of its runs.

    made, refused or lacking (a parent is unavailable): it waits -> delivered, overtaken or failed
    failed, skipped, stopped, or overtaken (another registration is complete, and used): no payload waits

Each transition is one transaction, which changes the row of the result. A row exists before the payload of its result
is sent anywhere. Payloads are folders (registration/outbox.py), from which the rows of waiting results can be restored.
So losing this file costs the list of runs, never a result.
"""

from __future__ import annotations

import functools
import hashlib
import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

from crucible_lineage.core.sql import LocalDatabase
from crucible_lineage.ids import canonical_json
from crucible_lineage.json_types import JsonObject
from crucible_lineage.machine.checksums import sealed, unsealed
from crucible_lineage.refs import DatasetRef
from crucible_lineage.text.masking import masked_text

MADE, REFUSED, LACKING, DELIVERED = "made", "refused", "lacking", "delivered"
OVERTAKEN, FAILED, SKIPPED, STOPPED = "overtaken", "failed", "skipped", "stopped"
OUTBOX = (MADE, REFUSED, LACKING)
"""The states of a result that waits for delivery."""
NEXT: Mapping[str, frozenset[str]] = {
    **dict.fromkeys(OUTBOX, frozenset((*OUTBOX, DELIVERED, OVERTAKEN, FAILED))),
    DELIVERED: frozenset((FAILED,)),  # missing at Crucible after all
    OVERTAKEN: frozenset((FAILED,)),
}
"""The states that may follow each state."""

COMPLETE, UNDER_WAY = "complete", "under way"  # states of a request: its results are at Crucible; somebody answers it

# The outcome that commands show for a step in this state. The step of a waiting result was executed.
_OUTCOMES = {
    **{MADE: "executed", DELIVERED: "executed", OVERTAKEN: "reused", SKIPPED: "skipped", STOPPED: "stopped"},
    **dict.fromkeys((REFUSED, LACKING, FAILED), "failed"),
}
_OUTCOME = "CASE state " + " ".join(f"WHEN '{state}' THEN '{word}'" for state, word in _OUTCOMES.items()) + " END"
_WAITS = f"state IN ({', '.join(repr(state) for state in OUTBOX)})"

SCHEMA = f"""
CREATE TABLE run (
    id TEXT PRIMARY KEY, project TEXT NOT NULL, pipeline TEXT NOT NULL, declaration TEXT, started TEXT NOT NULL,
    ended TEXT, outcome TEXT, error TEXT
) WITHOUT ROWID;
CREATE INDEX run_by_pipeline ON run (pipeline, started);
CREATE TABLE result (
    id INTEGER PRIMARY KEY, run TEXT NOT NULL, service TEXT NOT NULL, account TEXT NOT NULL, project TEXT NOT NULL,
    step TEXT NOT NULL, name TEXT NOT NULL, outputs TEXT NOT NULL, state TEXT NOT NULL, made TEXT,
    tries INTEGER NOT NULL DEFAULT 0, error TEXT, about TEXT, moved TEXT
);
CREATE UNIQUE INDEX result_waits ON result (service, account, name) WHERE {_WAITS};
CREATE INDEX result_by_run ON result (run, step);
CREATE INDEX result_failed ON result (service) WHERE state = '{FAILED}' AND about IS NOT NULL;
CREATE TABLE present_in (id INTEGER PRIMARY KEY, run TEXT NOT NULL, outcome TEXT NOT NULL, digest TEXT NOT NULL);
CREATE INDEX present_in_run ON present_in (run);
CREATE TABLE request (
    id TEXT PRIMARY KEY, kind TEXT NOT NULL, dataset TEXT NOT NULL, parameters TEXT NOT NULL, pipeline TEXT NOT NULL,
    project TEXT NOT NULL, state TEXT NOT NULL, reason TEXT NOT NULL, results TEXT NOT NULL, at TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE present (digest TEXT PRIMARY KEY, steps TEXT NOT NULL) WITHOUT ROWID
"""

_COLUMNS = "run, account, project, step, name, outputs, state, made, tries, error"
_INSERT = (
    "INSERT INTO result (run, service, account, project, step, name, outputs, state, made)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


class StateError(Exception):
    """A transition that the states do not allow: a defect of this library."""


@dataclass
class ResultRow:
    """The state of a result: the outputs of one step, as {output: MFID}; `name` is the least of these MFIDs.

    `made` is when it began to wait, `tries` the number of failed attempts to send it, `error` the last error. Only its
    `account` delivers it; `run` is the run that made it.

    In memory, a row also stands for the payload of a waiting result. Its `parents` have to be at Crucible first; those
    `from_before` were made by an earlier run. It is not sent before the moment `due`. Once delivered, `refs` are its
    datasets at Crucible by the id made here, and `is_ours` is False where another process or machine was faster,
    perhaps with other bytes. `log` is a file with details of the error.
    """

    run: str
    account: str
    project: str
    step: str
    name: str
    outputs: Mapping[str, str]
    state: str
    made: str = ""
    tries: int = 0
    error: str = ""
    parents: frozenset[str] = frozenset()
    from_before: bool = False
    due: float = 0.0
    is_running: bool = False
    refs: Mapping[str, DatasetRef] = field(default_factory=dict)
    is_ours: bool = True
    log: str = ""
    json_keys: ClassVar = "mfids step project since=made tries error refused account run_id=run"

    @property
    def mfids(self) -> tuple[str, ...]:
        """The ids of the outputs."""
        return tuple(self.outputs.values())

    @property
    def refused(self) -> bool:
        """Whether the service refused the result, so that sending it again unchanged is useless."""
        return self.state == REFUSED


@dataclass(frozen=True)
class RequestRow:
    """A request for the results of one dataset; `parameters` are those of steps, as STEP.NAME.

    It is under way, complete, failed for a reason (at a `step`), or waiting for Crucible, so that it comes again.
    """

    kind: str
    dataset: str
    parameters: JsonObject = field(default_factory=dict)
    pipeline: str = ""
    project: str = ""
    state: str = UNDER_WAY
    reason: str = ""
    results: tuple[str, ...] = ()
    at: str = ""
    step: str = ""
    json_keys: ClassVar = "id kind dataset parameters pipeline project state reason results at"

    @property
    def id(self) -> str:
        """Its id: equal requests have the same."""
        return hashlib.sha256(canonical_json([self.kind, self.dataset, self.parameters])).hexdigest()[:16]


@dataclass(frozen=True)
class Failure:
    """A result that could not be made, by its future id; `subject` are the datasets it is about, `last` a time."""

    mfid: str
    project: str
    pipeline: str
    step: str
    subject: tuple[str, ...]
    error: str
    failures: int
    last: str


class Journal(LocalDatabase):
    """The journal of a data folder for one service and the account that `who` returns, called once when needed."""

    def __init__(self, path: Path, service: str, who: Callable[[], str]) -> None:
        super().__init__(path, SCHEMA)
        self.service = service
        self._who = functools.cache(who)

    @property
    def account(self) -> str:
        """The account that owns the results."""
        return self._who()

    # Results

    def end_step(
        self, run: str, project: str, step: str, state: str, outputs: Mapping[str, str], **facts: object
    ) -> None:
        """Record that a step of a run ended without a payload of its own: failed, skipped, stopped, overtaken.

        A waiting result keeps its state, which is that of its payload. `facts` are the error, and for a failure
        that counts the `name` of the result that was to be made, and the datasets that it is `about`, as JSON.
        """

        def within(db: sqlite3.Connection) -> None:
            sql = "SELECT id, state FROM result WHERE run = ? AND step = ? ORDER BY id DESC LIMIT 1"
            row, before = db.execute(sql, (run, step)).fetchone() or (0, "")
            result = {"name": min(outputs.values()), "outputs": sealed(dict(outputs))} if outputs else {}
            if before in OUTBOX:
                self._set(db, row, before, {"error": facts["error"]})
            elif state in NEXT.get(before, ()):
                self._set(db, row, state, {**result, **facts})
            elif before != state or "about" in facts:
                new = (run, self.service, self.account, project, step, "", "", state, None)
                self._set(db, db.execute(_INSERT, new).lastrowid or 0, state, {**result, **facts})

        self.transaction(within)

    def move_waiting(self, name: str | Iterable[str], state: str, *, is_try: bool = False, **facts: object) -> None:
        """Move a waiting result, or several, to the next state, except those that another process has delivered.

        `is_try` counts a failed attempt to send it.
        """

        def within(db: sqlite3.Connection) -> None:
            for each in [name] if isinstance(name, str) else name:
                if (row := self._waiting(db, each)) is not None:
                    self._move(db, row, state, {**facts, **({"tries": row[3] + 1} if is_try else {})})

        self.transaction(within)

    def note_made(self, row: ResultRow) -> None:
        """Record that the payload of a step's outputs waits; a run, a flow or a process now ended may have made it."""

        def within(db: sqlite3.Connection) -> None:
            before = self._waiting(db, row.name)
            if before is not None and before[1] == row.run:
                return self._move(db, before, MADE, {})
            if before is not None:  # an earlier run left it; the new payload has replaced that one
                self._move(db, before, OVERTAKEN, {"error": "made again"})
            about = (row.run, self.service, row.account, row.project, row.step, row.name)
            db.execute(_INSERT, (*about, sealed(row.outputs), MADE, row.made))
            return None

        self.transaction(within)

    def waiting(self, *, of_others: bool = False) -> list[ResultRow]:
        """Return the results of this account (or of others, which only they deliver) that wait here, oldest first."""
        whose = "account <> ?" if of_others else "account = ?"
        sql = f"SELECT {_COLUMNS} FROM result WHERE service = ? AND {whose} AND {_WAITS} ORDER BY made, name"  # noqa: S608  ours
        return [_row(row) for row in self.rows(sql, self.service, self.account)]

    def _waiting(self, db: sqlite3.Connection, name: str) -> tuple[int, str, str, int] | None:
        """Return id, run, state and tries of the waiting result of this name."""
        sql = f"SELECT id, run, state, tries FROM result WHERE service = ? AND account = ? AND name = ? AND {_WAITS}"  # noqa: S608
        row: tuple[int, str, str, int] | None = db.execute(sql, (self.service, self.account, name)).fetchone()
        return row

    def _move(
        self, db: sqlite3.Connection, row: tuple[int, str, str, int], state: str, facts: Mapping[str, object]
    ) -> None:
        if state not in NEXT.get(row[2], ()):
            raise StateError(f"result {row[0]} of run {row[1]} cannot go from {row[2]} to {state}")
        self._set(db, row[0], state, facts)

    def _set(self, db: sqlite3.Connection, result: int, state: str, facts: Mapping[str, object]) -> None:
        facts = {name: masked_text(value) if isinstance(value, str) else value for name, value in facts.items()}
        facts["moved"] = datetime.now(UTC).isoformat()
        names = "".join(f", {name} = ?" for name in facts)
        db.execute(f"UPDATE result SET state = ?{names} WHERE id = ?", (state, *facts.values(), result))  # noqa: S608

    # Runs

    def begin_run(self, run: str, pipeline: str, project: str, declaration: Path) -> None:
        """Record the start of a run of the pipeline that this file declares."""
        now = datetime.now(UTC).isoformat()
        self.write(
            "INSERT OR REPLACE INTO run VALUES (?, ?, ?, ?, ?, NULL, NULL, NULL)",
            *(run, project, pipeline, str(declaration), now),
        )

    def end_run(self, run: str, outcome: str, error: str = "") -> None:
        """Record the end of a run and its outcome, and the reason if it could not start."""
        values = (datetime.now(UTC).isoformat(), outcome, masked_text(error), run)
        self.write("UPDATE run SET ended = ?, outcome = ?, error = ? WHERE id = ?", *values)

    def note_present(self, run: str, outcome: str, steps: Mapping[str, Mapping[str, str]]) -> None:
        """Record steps that were not executed, with their datasets; runs with equal lists share one copy."""
        if not steps:
            return
        text = json.dumps({step: dict(outputs) for step, outputs in steps.items()})
        digest = hashlib.sha256(text.encode()).hexdigest()

        def within(db: sqlite3.Connection) -> None:
            db.execute("INSERT OR IGNORE INTO present VALUES (?, ?)", (digest, text))
            db.execute("INSERT INTO present_in (run, outcome, digest) VALUES (?, ?, ?)", (run, outcome, digest))

        self.transaction(within)

    def note_request(self, request: RequestRow) -> None:
        """Record the state of a request; the last one counts."""
        texts = {"parameters": json.dumps(request.parameters), "results": json.dumps(request.results)}
        values = [texts.get(name, getattr(request, name)) for name in RequestRow.json_keys.split()]
        marks = ", ".join("?" * len(values))
        self.write(f"INSERT OR REPLACE INTO request VALUES ({marks})", *values)  # noqa: S608

    def requests(self, project: str | None = None) -> list[RequestRow]:
        """Return the requests that were taken here, the newest first."""
        sql = "SELECT * FROM request WHERE project = coalesce(?, project) ORDER BY at DESC"
        rows = self.rows(sql, project)
        return [
            RequestRow(kind, dataset, json.loads(given), name, own_project, state, reason, tuple(json.loads(made)), at)
            for _, kind, dataset, given, name, own_project, state, reason, made, at in rows
        ]

    def runs_of(self, project: str) -> list[str]:
        """Return the ids of all runs in a project."""
        return [row[0] for row in self.rows("SELECT id FROM run WHERE project = ? COLLATE NOCASE", project)]

    def run_steps(self, run: str) -> list[tuple[str, str, dict[str, str]]]:
        """Return step, outcome and datasets by output of the last attempt at each step of a run, sorted by step."""
        steps: dict[str, tuple[str, dict[str, str]]] = {}
        for step, outcome, outputs in self._ends(run):
            steps[step] = outcome, outputs if isinstance(outputs, dict) else unsealed(outputs) or {}
        return [(step, outcome, outputs) for step, (outcome, outputs) in sorted(steps.items())]

    def _ends(self, run: str) -> Iterator[tuple[str, str, dict[str, str] | str]]:
        """Yield step, outcome, and outputs (perhaps sealed) of all attempts in a run, the last of each step last."""
        present = "SELECT outcome, digest, steps FROM present_in JOIN present USING (digest) WHERE run = ? ORDER BY id"
        for outcome, digest, steps in self.rows(present, run):
            if hashlib.sha256(steps.encode()).hexdigest() == digest:  # else the row is damaged
                yield from ((step, outcome, outputs) for step, outputs in json.loads(steps).items())
        made = f"SELECT step, {_OUTCOME}, outputs FROM result WHERE run = ? ORDER BY id"  # noqa: S608  a text of ours
        yield from self.rows(made, run)

    def recent_runs(self, project: str | None, limit: int) -> list[JsonObject]:
        """Return the last runs, newest first, with outcome, numbers of steps by outcome, and why none started."""
        rows = self.rows(
            "SELECT id, pipeline, project, declaration, started, ended, outcome, error FROM run"
            " WHERE ? IS NULL OR project = ? COLLATE NOCASE ORDER BY started DESC LIMIT ?",
            *(project, project, limit),
        )
        names = ("run_id", "pipeline", "project", "declaration", "started", "ended", "outcome")
        runs = []
        for *row, error in rows:
            outcomes = {step: outcome for step, outcome, _ in self._ends(row[0])}
            counts = Counter(outcomes[step] for step in sorted(outcomes))
            runs.append({**dict(zip(names, row, strict=True)), "steps": dict(counts), "error": error or ""})
        return runs

    def run_counts(self) -> list[tuple[str, str, str | None, int, str | None]]:
        """Count the runs by pipeline, project and outcome (None: not ended), with the last end of each."""
        return self.rows(
            "SELECT pipeline, project, outcome, count(*), max(ended) FROM run GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"
        )

    def longest_s(self, pipeline: str, project: str) -> float | None:
        """Return how long the longest of the last runs of a pipeline took that ended well; None if there is none."""
        row = self.row(
            "SELECT max(86400 * (julianday(ended) - julianday(started))) FROM (SELECT started, ended FROM run"
            " WHERE pipeline = ? AND project = ? AND outcome = 'complete' ORDER BY started DESC LIMIT 20)",
            *(pipeline, project),
        )
        return row[0] if row else None

    def result_counts(self) -> list[tuple[str, str, int]]:
        """Count the results by project and state, without what no step made, which is listed under its id."""
        return self.rows(
            "SELECT project, state, count(*) FROM result WHERE NOT instr(outputs, '\"' || name || '\":')"
            " GROUP BY 1, 2 ORDER BY 1, 2"
        )

    def pipelines(self, project: str | None = None) -> list[JsonObject]:
        """Return the pipelines that ran here; several `declarations` mean that two pipelines share a name."""
        rows = self.rows(
            "SELECT pipeline, project, declaration, max(started), json_group_array(DISTINCT declaration) FROM run"
            " WHERE ? IS NULL OR project = ? COLLATE NOCASE GROUP BY pipeline, project ORDER BY pipeline, project",
            *(project, project),
        )
        return [
            {
                "pipeline": name,
                "project": own_project,
                "declaration": last,
                "declarations": sorted(file for file in json.loads(files) if file and Path(file).is_file()),
                "last_run": started,
            }
            for name, own_project, last, started, files in rows
        ]

    def declaration(self, pipeline: str) -> Path | None:
        """Return the file that declared the pipeline when it last ran here."""
        row = self.row(
            "SELECT declaration FROM run WHERE pipeline = ? AND declaration IS NOT NULL ORDER BY started DESC LIMIT 1",
            pipeline,
        )
        return Path(row[0]) if row else None

    def datasets(self, project: str) -> set[str]:
        """Return the MFIDs of all results of a project that runs from this data folder made or used."""
        steps = (step for run in self.runs_of(project) for step in self.run_steps(run))
        return {mfid for _, _, outputs in steps for mfid in outputs.values()}

    # Failures

    def failures(self, project: str | None = None) -> dict[str, Failure]:
        """Return the failures of results that were not made since, by the result's id, latest last."""
        made = ", ".join(f"'{state}'" for state in (*OUTBOX, DELIVERED, OVERTAKEN))
        rows = self.rows(
            "SELECT result.id, name, run.project, pipeline, step, about, result.error, moved FROM result"  # noqa: S608
            " JOIN run ON run.id = run WHERE result.service = ? AND state = 'failed' AND about IS NOT NULL"
            " AND (? IS NULL OR run.project = ? COLLATE NOCASE)"
            " AND NOT EXISTS (SELECT 1 FROM run AS again JOIN result AS later ON later.run = again.id"
            " AND later.step = result.step WHERE again.pipeline = run.pipeline"
            " AND again.project = run.project COLLATE NOCASE"
            f" AND later.id > result.id AND later.state IN ({made})) ORDER BY result.id",
            *(self.service, project, project),
        )
        last = {(row[2].casefold(), row[3], row[4]): row for row in rows}
        tried = Counter((row[1], row[2].casefold(), row[3], row[4]) for row in rows)
        found = {}
        for key, row in sorted(last.items(), key=lambda entry: entry[1][0]):
            _, name, in_project, pipeline, step, about, error, failed_at = row
            subject, count = tuple(json.loads(about)), tried[(name, *key)]
            found[name] = Failure(name, in_project, pipeline, step, subject, error or "", count, failed_at or "")
        return found


def _row(row: Sequence[Any]) -> ResultRow:
    fields = dict(zip(_COLUMNS.split(", "), row, strict=True))
    texts = {name: fields[name] or "" for name in ("made", "error")}
    return ResultRow(**{**fields, **texts, "outputs": unsealed(fields["outputs"]) or {}})
