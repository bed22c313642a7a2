"""Statements: what is in force follows from the set of them alone, and doubt goes down the whole lineage."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crucible_lineage.ids import canonical_json
from crucible_lineage.statements.statements import (
    AWAIT,
    CERTIFY,
    CHANGED,
    HOLD,
    REVOKE,
    SIGN,
    TRUST,
    About,
    Doubt,
    Statement,
    StatementIndex,
    SubjectFacts,
    at_fault,
    in_force,
    signers_text,
    statement_id,
    statement_in,
    why_not_sign,
)
from tests.golden.stored import run_examples


@pytest.mark.parametrize("name", ["statements", "stating"])
def test_the_examples_hold(name: str) -> None:
    run_examples(Path(__file__).with_name(f"{name}.txt"))


PROJECTS = ("lab", "beamline", "other")


def said(verb: str = HOLD, project: str = "lab", *, on: Iterable[str] = (), **more: object) -> Statement:
    """A statement under the id that it has."""
    fields: dict[str, object] = {"by": "user", "when": "2026-11-01T00:00:00+00:00", "why": ""}
    fields["about"] = About(tuple(on))
    statement = Statement(mfid="", project=project, verb=verb, **{**fields, **more})  # type: ignore[arg-type]
    return replace(statement, mfid=statement_id(statement))


@st.composite
def histories(draw: st.DrawFn) -> list[Statement]:
    """Holds, revocations of anything that came before (revocations too), and trust, in several projects."""
    found: list[Statement] = []
    for number in range(draw(st.integers(1, 12))):
        project = draw(st.sampled_from(PROJECTS))
        kind = draw(st.sampled_from([HOLD, HOLD, REVOKE, REVOKE, TRUST]))
        if kind == REVOKE and found:
            which = draw(
                st.lists(st.sampled_from([statement.mfid for statement in found]), min_size=1, max_size=3, unique=True)
            )
            found.append(said(REVOKE, project, revokes=tuple(sorted(which)), why=str(number)))
        elif kind == TRUST:
            found.append(said(TRUST, project, body={"whose": [draw(st.sampled_from(PROJECTS))]}, why=str(number)))
        else:
            found.append(said(HOLD, project, on=["0" * 26], why=str(number)))
    return found


def told_one_by_one(history: list[Statement]) -> set[str]:
    """What is in force, by the definition: a revocation always comes later than what it revokes, so from the end."""

    def counts(statement: Statement, project: str, trusted: dict[str, set[str]]) -> bool:
        return statement.project == project or statement.project in trusted.get(project, set())

    def standing(trusted: dict[str, set[str]]) -> set[str]:
        gone: set[str] = set()
        known = {statement.mfid: statement for statement in history}
        for statement in reversed(history):
            if statement.mfid not in gone:
                gone |= {mfid for mfid in statement.revokes if counts(statement, known[mfid].project, trusted)}
        return known.keys() - gone

    trusted: dict[str, set[str]] = {}
    own = standing({})
    for statement in history:
        if statement.verb == TRUST and statement.mfid in own:
            trusted.setdefault(statement.project, set()).update(statement.body["whose"])
    return standing(trusted)


@given(histories(), st.randoms(use_true_random=False))
@settings(max_examples=150, deadline=None)
def test_order_of_arrival_and_duplicates_do_not_matter_and_revocations_can_be_revoked(
    history: list[Statement], chance: random.Random
) -> None:
    arrived = history + chance.choices(history, k=len(history))
    chance.shuffle(arrived)
    assert in_force(arrived).statements.keys() == told_one_by_one(history)


def test_another_project_revokes_and_signs_nothing_unless_it_is_trusted() -> None:
    hold = said(on=["0" * 26])
    foreign = said(REVOKE, "beamline", revokes=(hold.mfid,))
    assert hold.mfid in in_force([hold, foreign]).statements
    trust = said(TRUST, body={"whose": ["Beamline"]})
    assert hold.mfid not in in_force([hold, foreign, trust]).statements
    own_trust = said(TRUST, "beamline", body={"whose": ["lab"]})
    assert hold.mfid in in_force([hold, foreign, own_trust]).statements
    awaited, signed = said(AWAIT, on=["0" * 26]), said(SIGN, "beamline", on=["0" * 26], by="bob")
    assert in_force([awaited, signed, own_trust]).signers(awaited) == set()
    assert in_force([awaited, signed, trust]).signers(awaited) == {"bob"}


def test_that_two_signatures_are_awaited_is_lifted_by_two_accounts() -> None:
    awaited = said(AWAIT, on=["0" * 26], body={"count": 2})
    first, again, other = (
        said(REVOKE, revokes=(awaited.mfid,), by=by, why=why) for by, why in (("bob", "a"), ("bob", "b"), ("eve", ""))
    )
    assert awaited.mfid in in_force([awaited, first, again]).statements
    assert awaited.mfid not in in_force([awaited, first, other]).statements


def test_the_same_said_by_two_machines_has_one_id_and_said_again_after_it_was_lifted_another_one() -> None:
    statement, two = said(on=["0" * 26]), said(on=["0" * 26], when="2026-11-02T00:00:00+00:00", who="Mara")
    assert statement.mfid == two.mfid
    assert len({statement.mfid, said(on=["0" * 26], again=1).mfid, said(on=["0" * 26], by="other").mfid}) == 3


def test_a_statement_is_read_only_under_its_own_id_in_its_own_project_and_complete() -> None:
    statement = said(on=["0" * 26], why="detector saturated")
    written = {
        "status": "complete",
        "recipe": statement.recipe(),
        "activity": {"kind": "statement", "when": statement.when},
        "agent": {"username": "Mara"},
    }
    record = {"unique_id": statement.mfid, "project_id": "lab", "owner_orcid": "user", "measurement": "statement"}
    record |= {"scientific_metadata": {"crucible_lineage": written}}
    found = statement_in(record)
    assert found is not None
    assert (found.mfid, found.why, found.attribution) == (
        statement.mfid,
        "detector saturated",
        "by Mara since 2026-11-01: detector saturated",
    )
    assert Statement.unpacked(found.packed()) == found
    assert found.account == "user"
    changed = {**written, "recipe": {**statement.recipe(), "why": "nothing"}}
    faulty = [
        (record | {"project_id": "other"}, "moved here from project lab"),
        (record | {"owner_orcid": "bob"}, "its author is user, and at Crucible it belongs to bob"),
        (record | {"owner_orcid": None}, "belongs to nobody"),
        (record | {"scientific_metadata": {"crucible_lineage": changed}}, "its content was changed"),
        (record | {"scientific_metadata": {}}, "its content was changed"),
        (record | {"scientific_metadata": {"crucible_lineage": {**written, "status": "incomplete"}}}, "not finished"),
    ]
    for other, reason in faulty:
        read = statement_in(other)
        assert read is not None
        assert reason in read.fault
        assert read.account == ""
        assert in_force([read]).statements.keys() == {statement.mfid}, "a hold blocks, whoever vouches for it"
        assert in_force([read]).unvouched.keys() == {statement.mfid}
    assert statement_in({"unique_id": statement.mfid, "scientific_metadata": {"crucible_lineage": changed}}) is None
    assert canonical_json(statement.recipe())


@pytest.mark.parametrize("verb", [SIGN, CERTIFY, TRUST, REVOKE])
def test_what_nobody_vouches_for_has_no_effect_but_a_hold_blocks(verb: str) -> None:
    hold = said(on=["0" * 26])
    statement = said(verb, on=["0" * 26], revokes=(hold.mfid,), body={"whose": ["beamline"]})
    for fault in ("", "its author is user, and at Crucible it belongs to bob"):
        active = in_force([hold, replace(statement, fault=fault)])
        assert (statement.mfid in active.statements, hold.mfid in active.statements) == (not fault, bool(fault))
        assert bool(active.trusted) == (verb == TRUST and not fault)


def test_a_hold_whose_content_is_lost_blocks_its_project_until_it_is_lifted() -> None:
    record = {"unique_id": said(on=["0" * 26]).mfid, "project_id": "lab", "measurement": "statement", "owner": None}
    lost = statement_in({**record, "data_type": "hold", "scientific_metadata": {"crucible_lineage": {}}})
    assert lost is not None
    index = StatementIndex.from_active(in_force([lost]), HOLD)
    assert index.on("x", SubjectFacts("Lab"), "other")
    assert not index.on("x", SubjectFacts("other"), "other")
    lifted = in_force([lost, said(REVOKE, revokes=(lost.mfid,))])
    assert not StatementIndex.from_active(lifted, HOLD)
    flag = statement_in({**record, "data_type": "flag", "scientific_metadata": {"crucible_lineage": {}}})
    assert flag is not None
    assert not StatementIndex.from_active(in_force([flag]), HOLD)


@pytest.mark.parametrize("seed", range(1))
def test_doubt_on_ten_thousand_datasets_is_that_of_a_brute_force(seed: int) -> None:
    chance = random.Random(seed)
    names = [f"{number:026d}" for number in range(10_000)]
    graph = nx.DiGraph()
    graph.add_nodes_from(names)
    for at, name in enumerate(names[1:], 1):
        for _ in range(chance.choice([0, 1, 1, 2, 3])):
            graph.add_edge(names[chance.randrange(max(0, at - 300), at)], name)
    projects = {name: chance.choice(PROJECTS[:2]) for name in names}
    instruments = {name: chance.choice(["", "Raman 1", "Raman 2"]) for name in names}
    months = {name: chance.randrange(1, 13) for name in names}
    facts = {
        name: SubjectFacts(
            projects[name],
            tuple(graph.predecessors(name)),
            instruments[name],
            f"2026-{months[name]:02}-10T00:00:00+00:00",
            chance.choice(["abc1", "abc2"]),
        )
        for name in names
    }
    holds = [said(HOLD, projects[name], on=[name], why=name) for name in chance.sample(names, 25)]
    holds.append(said(HOLD, "lab", on=[names[17]], why="of another project, perhaps"))
    span = About(instrument="raman 1", since="2026-03-01T00:00:00+00:00", until="2026-04-01T00:00:00+00:00")
    conditional = said(HOLD, "beamline", about=span)
    index = StatementIndex.from_active(in_force([*holds, conditional]), HOLD)

    held = {name for hold in holds for name in hold.about.datasets if hold.project in (projects[name], "lab")}
    held |= {
        name for name in names if (instruments[name], months[name]) == ("Raman 1", 3) and projects[name] == "beamline"
    }
    expected = held.union(*(nx.descendants(graph, name) for name in held))

    began = time.perf_counter()
    found = at_fault(facts, index, "lab")
    assert time.perf_counter() - began < 5
    assert found.keys() == expected
    for name, source in chance.sample(sorted(found.items()), 200):
        assert source in held
        assert source == name or nx.has_path(graph, source, name)

    lifted = [said(REVOKE, statement.project, revokes=(statement.mfid,)) for statement in [*holds, conditional]]
    assert not at_fault(facts, StatementIndex.from_active(in_force([*holds, conditional, *lifted]), HOLD), "lab")


def test_a_forged_circle_ends() -> None:
    facts = {"a": SubjectFacts("lab", ("b",)), "b": SubjectFacts("lab", ("a", "c")), "c": SubjectFacts("lab")}
    index = StatementIndex({"c": [said(on=["c" * 26])]})
    assert at_fault(facts, index, "lab").keys() == {"a", "b", "c"}


MARCH = About(instrument="Raman 1", since="2026-03-01", until="2026-04-01")
X, Y = "0" * 26, "1" * 26


@pytest.mark.parametrize(
    ("about", "facts", "is_about"),
    [
        (MARCH, ("raman 1", "2026-03-01T00:00:00Z"), True),
        (MARCH, ("Raman 1", ""), True),
        (About(instrument="Raman 1", since="2026-03-01"), ("Raman 1", "2026-02-28T23:59:59Z"), False),
        (About(instrument="Raman 1", until="2026-04-01"), ("Raman 1", "2026-03-31T23:59:59Z"), True),
        (About(instrument="Raman 1", until="2026-04-01"), ("Raman 1", "2026-04-01T00:00:00Z"), False),
        (About(instrument="Raman 1"), ("Raman 2", "2026-03-01T00:00:00Z"), False),
        (About(instrument="Raman 1"), ("", "2026-03-01T00:00:00Z"), False),
        (About(code="abc"), ("", "", "abcd"), True),
        (About(code="abc"), ("", "", "ab"), False),
        (About((X,)), ("", ""), True),
        (About((Y,)), ("", ""), False),
    ],
)
def test_what_a_hold_is_about(about: About, facts: tuple[str, ...], is_about: bool) -> None:
    hold, of_data = said(about=about), SubjectFacts("lab", (), *facts)
    assert hold.is_about(X, of_data) == is_about
    index = StatementIndex.from_active(in_force([hold]), HOLD)
    assert bool(index.on(X, of_data, "other")) == is_about
    assert bool(index.on(X, of_data._replace(project="other"), "Lab")) == is_about, "as the lab sees it"
    assert not index.on(X, of_data._replace(project="other"), "other")
    assert bool(index.on_code(of_data.code, "lab")) == (is_about and bool(about.code))


def test_whose_signatures_a_result_waits_for_in_words() -> None:
    who = {"by": ["user", "bob", "eve"], "names": {"bob": "Bob"}, "makers": ["user"]}
    named, any_two = said(AWAIT, on=[X], body={**who, "not": "maker"}), said(AWAIT, on=[X], body={"count": 2})
    own, hold = said(AWAIT, on=[X], body=who), said(on=[X], why="torn", who="Ada", body={"count": 3})
    maker = said(AWAIT, on=[X], body={"not": "maker", "makers": ["user"], "count": "two"})
    assert [signers_text(one, ["eve"]) for one in (named, own, maker, any_two)] == [
        *("Bob", "user, Bob", "any member but its maker", "any member")
    ]
    assert [why_not_sign(named, one) for one in ("user", "bob", "guest")] == [
        *("the maker of a result does not sign it", "", "it waits for Bob, eve")
    ]
    assert [why_not_sign(one, "user") for one in (own, any_two)] == ["", ""]
    assert [one.needed for one in (named, any_two, maker, hold)] == [1, 2, 1, 1]
    words = Doubt(X, any_two).message(Y), Doubt(X, hold).message(X), Doubt(X, hold).message()
    ada = f"{X} is on hold by Ada since 2026-11-01: torn"
    waits = f"comes from {X}, which is not signed yet: it waits for any member since 2026-11-01"
    assert words == (waits, ada, ada)
    doubts = [Doubt(X, any_two), Doubt(Y, any_two), Doubt(X, hold)]
    assert [doubt.is_of_candidate(X) for doubt in doubts] == [True, False, False]
    signed = [said(SIGN, on=[X], by=by) for by in ("bob", "eve", "user")]
    left = [bool(StatementIndex.from_active(in_force([any_two, *signed[:n]]), HOLD)) for n in range(3)]
    assert left == [True, True, False]
    lifting = said(REVOKE, revokes=(maker.mfid,))
    assert in_force([maker, lifting]).statements.keys() == {maker.mfid, lifting.mfid}, "its maker does not lift it"


def test_accounts_are_trusted_and_what_nobody_vouches_for_says_so() -> None:
    trust, sign = said(TRUST, body={"whose": ["Bob"]}), said(SIGN, "other", on=[X], by="bob")
    assert in_force([trust, sign]).counts(sign, "Lab")
    assert not in_force([trust, sign]).counts(replace(sign, fault="moved"), "lab")
    hold = said(on=[X], fault="moved", when="2026-11-02T00:00:00+00:00")
    assert in_force([hold, replace(hold, fault="", when="2026-11-01")]).unvouched == {}
    effects = [replace(hold, verb=verb, fault=fault).warning.partition(", which ")[2] for verb, fault in (
        (HOLD, "moved"), (AWAIT, "moved"), (SIGN, "moved"), (SIGN, CHANGED), (TRUST, CHANGED))]  # fmt: skip
    blocks = "blocks until it is lifted: "
    assert effects == [*[f"{blocks}moved"] * 2, "has no effect: moved", f"has no effect: {CHANGED}", blocks + CHANGED]
