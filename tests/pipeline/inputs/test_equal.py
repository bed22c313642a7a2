"""One notion of equal: selections, matches, groups, partners and certificates join and keep apart the same values."""

from __future__ import annotations

from json import dumps
from typing import Any

import pytest

from crucible_lineage.ask.table import _grouped
from crucible_lineage.condition import parse_condition
from crucible_lineage.lineage.records import shared
from crucible_lineage.pipeline.plan.bind import bind_file
from crucible_lineage.pipeline.plan.planner import make_plan, plan_pipeline
from crucible_lineage.session import Session
from crucible_lineage.statements.stating import certify
from crucible_lineage.text.times import is_same_value

NFC, NFD = "caf\u00e9", "cafe\u0301"
CLASSES = ([1, 1.0], [True], ["True"], [2**53, float(2**53)], [NFC, NFD])
VALUES = [value for some in CLASSES for value in some]
STEPS = """

@step
def pooled(parts: list[Path], out: Path) -> None:
    (out / "pooled.txt").write_text("")


@step
def pair(data: Path, other: Path, out: Path) -> None:
    (out / "pair.txt").write_text("")
"""
HEAD = "pipeline: equal\nproject: lab\ninputs:\n"
DATA = HEAD + "  data: {select: {data_type: one}, each: true}\n"
TAKEN = "nearest: either, match: metadata.k"
DECLARED = {
    "group_by": DATA + "steps:\n  p: {uses: 'LABMODULE:pooled', inputs: {parts: {from: data, group_by: metadata.k}}}\n",
    "match": DATA
    + "  other: {select: {data_type: two}, match: {data: metadata.k}}\n"
    + "steps:\n  p: {uses: 'LABMODULE:pair', inputs: {data: data, other: other}}\n",
    "same": DATA
    + "  other: {select: {data_type: two}}\n"
    + f"steps:\n  p: {{uses: 'LABMODULE:pair', inputs: {{data: data, other: {{from: other, {TAKEN}}}}}}}\n",
    "certificate": DATA
    + "  other: {calibration: axis, for: data}\n"
    + "steps:\n  p: {uses: 'LABMODULE:pair', inputs: {data: data, other: other}}\n",
}


@pytest.fixture
def values(lab: Any, session: Session) -> dict[str, int]:
    """Register a dataset of two types for each value; return the class of the value by id."""
    module = lab.folder / f"{lab.module}.py"
    lab.file(module.name, module.read_text() + STEPS)
    session.ensure_project("lab")
    found = {}
    for number, some in enumerate(CLASSES):
        for value in some:
            for kind in ("one", "two"):
                when = {"timestamp": "2024-05-01T12:00:00Z"}
                fields = {"project_id": "lab", "dataset_name": f"{value!r}", "data_type": kind, **when}
                fields |= {"session_name": value} if isinstance(value, str) else {}
                made = session.client.datasets.create(fields, scientific_metadata={"k": value})
                session.client.files.upload(made.dsid, lab.file(f"{kind}-{value!r}.txt", kind))
                found[made.dsid] = number
    return found


@pytest.mark.parametrize("door", DECLARED)
def test_values_of_one_class_are_joined_and_others_kept_apart(
    lab: Any, session: Session, values: dict[str, int], door: str
) -> None:
    if door == "certificate":
        ones = {number: mfid for mfid, number in values.items()}
        for number, some in enumerate(CLASSES):
            certify(session, ones[number], {"metadata.k": some[-1]}, "2024-01-01", kind="axis")
    planned = plan_pipeline(bind_file(lab.declare(DECLARED[door]), session.store), session)
    assert all(step.state == "missing" for step in planned.steps), [step.causes for step in planned.steps]
    assert len(planned.steps) == (len(CLASSES) if door == "group_by" else len(VALUES))
    for instance in planned.instances.values():
        assert len({values[feed.item(planned.inputs).mfid or ""] for feed in instance.feeds}) == 1


@pytest.mark.parametrize("value", VALUES, ids=ascii)
def test_a_selection_takes_equal_values(lab: Any, session: Session, values: dict[str, int], value: Any) -> None:
    number = next(number for number, some in enumerate(CLASSES) if any(value is one for one in some))
    for filters in (f"metadata.k: {dumps(value)}", f"session_name: {dumps(value)}"):
        if not isinstance(value, str) and "session" in filters:
            continue
        text = HEAD + f"  data: {{select: {{data_type: one, {filters}}}, each: true}}\n"
        text += "steps:\n  p: {uses: 'LABMODULE:scale', inputs: {counts: data}}\n"
        plan = make_plan(bind_file(lab.declare(text), session.store), session)
        assert len(plan.steps) == len(CLASSES[number])


@pytest.mark.parametrize("value", VALUES, ids=ascii)
def test_questions_join_equal_values(value: Any) -> None:
    number = next(number for number, some in enumerate(CLASSES) if any(value is one for one in some))
    where = parse_condition(f"k == {value!r} and k in [{value!r}]")
    joined = {
        "where": [other for other in VALUES if where.is_met(lambda _, other=other: other, "it")],
        "data agree": [other for other in VALUES if "k" in shared([{"k": value}, {"k": other}])],
        "by": [other for other in VALUES if len(_grouped(("k", "n"), [(value, 1), (other, 1)], ("k",))[1]) == 1],
    }
    for door, found in joined.items():
        assert [*map(repr, found)] == [*map(repr, CLASSES[number])], door
    same = [other for other in VALUES if is_same_value("k", value, other)]  # a difference tells the spelling, too
    assert {type(other) is bool for other in same} == {type(value) is bool}
