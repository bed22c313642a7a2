"""How a dataset came to be, in plain words, out of its provenance record."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from crucible_lineage.errors import InputError, NotFoundError
from crucible_lineage.pipeline.plan.differences import code_diff, differences
from crucible_lineage.provenance.attachment import whole_record
from crucible_lineage.provenance.record import is_complete, read_record, unreadable
from crucible_lineage.session import Session

__all__ = ["Story", "tell"]


@dataclass(frozen=True)
class Story:
    """What is told of a dataset: `paragraphs` hold lines; `record` is what they are drawn from, if there is one."""

    mfid: str
    name: str
    paragraphs: tuple[tuple[str, ...], ...]
    record: Mapping[str, Any] | None

    def to_json(self) -> dict[str, Any]:
        """What `why --json` prints."""
        return {
            "dataset": self.mfid,
            "name": self.name,
            "story": [list(paragraph) for paragraph in self.paragraphs],
            "record": dict(self.record) if self.record else None,
        }


def tell(session: Session, mfid: str) -> Story:
    """The story of a dataset. InputError if there is none that this key may see."""
    try:
        dataset = session.client.datasets.get(mfid, include_metadata=True)
    except NotFoundError as error:
        raise InputError(f"dataset {mfid}: there is none here that this key may see") from error
    name = dataset.dataset_name or mfid
    record = read_record(dataset.scientific_metadata)
    if record is None:
        reason = unreadable(dataset.scientific_metadata)
        said = f"its provenance record cannot be read: {reason}" if reason else "it has no provenance record"
        how = "Nothing says how it came to be; it was registered by other means, perhaps by hand."
        return Story(mfid, name, ((f"{name} ({mfid})", f"{said}. {how}"),), None)
    record = whole_record(session.client, mfid, record)
    names = _names(session, [entry["mfid"] for entry in record["used"]])
    paragraphs = [
        tuple(_origin(mfid, name, record)),
        tuple(_parents(record, names)),
        tuple(_params(record)),
        tuple(_circumstances(record)),
        tuple(_succession(session, record)),
    ]
    return Story(mfid, name, tuple(paragraph for paragraph in paragraphs if paragraph), record)


def _names(session: Session, mfids: list[str]) -> dict[str, str]:
    names = {}
    for mfid in dict.fromkeys(mfids):
        try:
            names[mfid] = session.client.datasets.get(mfid).dataset_name or mfid
        except NotFoundError:
            names[mfid] = "a dataset that this key may not see, or that is gone"
    return names


def _origin(mfid: str, name: str, record: Mapping[str, Any]) -> Iterator[str]:
    yield f"{name} ({mfid})"
    if not is_complete(record):
        yield "is INCOMPLETE: whoever registered it did not come to the end; run what makes it once more"
    if "step" not in record:
        files = ", ".join(file["name"] for file in record["generated"])
        note = (record.get("activity") or {}).get("note")
        made = "was made by hand of its parents" if record["used"] else "was registered as it was measured"
        yield f"{made}, from the files {files}" + (f": {note}" if note else "")
        return
    activity = record["activity"]
    pipeline = record.get("pipeline")
    output = "" if record["output"] == "out" else f"output {record['output']!r} of "
    within = f" of pipeline {pipeline['name']}" if pipeline else ""
    attempt = f", attempt {record['attempt'] + 1}" if record["attempt"] else ""
    named = f"step {(pipeline or {}).get('step') or record['step']!r}{within}"
    yield f"is {output}{named}{attempt}, made by {activity['function']}"
    git = activity["code"].get("git")
    commit = f", git {git['commit'][:12]}{' with uncommitted changes' if git['dirty'] else ''}" if git else ""
    yield f"with code {activity['code']['fingerprint'][:12]}{commit}"
    if activity["code"].get("not_covered"):
        yield f"not covered by that fingerprint: {', '.join(activity['code']['not_covered'])}"


def _parents(record: Mapping[str, Any], names: Mapping[str, str]) -> Iterator[str]:
    if record["used"]:
        yield "It was made of"
    for entry in record["used"]:
        files = ", ".join(file["name"] for file in entry["files"])
        yield f"  {entry['role']}: {names[entry['mfid']]} ({entry['mfid']})" + (f", {files}" if files else "")


def _params(record: Mapping[str, Any]) -> Iterator[str]:
    params = record["recipe"].get("params") or {}
    if params:
        yield "With the parameters"
    for name, value in params.items():
        yield f"  {name} = {json.dumps(value, ensure_ascii=False)}"


def _circumstances(record: Mapping[str, Any]) -> Iterator[str]:
    agent = record["agent"]
    who = agent.get("username") or agent.get("unique_id") or agent.get("local_user") or "somebody"
    activity = record.get("activity") or {}
    if "started" not in activity:
        yield f"By {who}"
        return
    started, ended = datetime.fromisoformat(activity["started"]), datetime.fromisoformat(activity["ended"])
    took = (ended - started).total_seconds()
    software = record["software"]
    yield f"By {who} on {started:%Y-%m-%d %H:%M:%S %Z}, in {took:.3g} s"
    packages = ", ".join(f"{name} {version}" for name, version in software["packages"].items())
    yield f"On Python {software['python']}, {software['platform']}, with {packages}"
    run = activity.get("run") or {}
    if run:
        yield f"In run {run.get('run_id', '?')} ({run.get('engine', '?')})"


def _succession(session: Session, record: Mapping[str, Any]) -> Iterator[str]:
    before = record.get("supersedes")
    if not before:
        return
    yield f"It supersedes {before}"
    try:
        earlier = read_record(session.client.datasets.get(before, include_metadata=True).scientific_metadata)
    except NotFoundError:
        yield "  which is gone, or which this key may not see"
        return
    if earlier is None:
        yield "  whose record cannot be read"
        return
    earlier = whole_record(session.client, before, earlier)
    found = differences(earlier["recipe"], record["recipe"])
    for difference in found or ["nothing differs: it was made again on request"]:
        yield f"  {difference}"
    if earlier["recipe"].get("code") != record["recipe"].get("code"):
        old, new = (part["activity"]["code"].get("source", "") for part in (earlier, record))
        yield from (f"    {line}" for line in code_diff(old, new))
