"""Certificates: what is left of each follows from the set of statements alone, and the choice from the time."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crucible_lineage.ids import derive_mfid
from crucible_lineage.statements.calibrations import (
    NEXT,
    Calibrations,
    Certificate,
    certificates_of,
    counting_certificates,
)
from crucible_lineage.statements.statements import CERTIFY, REVOKE, TRUST, About, Statement, in_force, statement_id
from crucible_lineage.text.amounts import is_equal

DAY0 = datetime(2024, 1, 1, tzinfo=UTC)
DAYS = 40
LAST = 10_000


def day(number: int) -> datetime:
    return DAY0 + timedelta(days=number)


def dataset(number: int) -> str:
    return derive_mfid({"calibration": number}, DAY0)


def stated(verb: str, body: dict[str, Any], on: str, project: str = "lab", why: str = "") -> Statement:
    statement = Statement("", project, verb, About((on,)), "user", "2026-11-01T00:00:00+00:00", why, body=body)
    return replace(statement, mfid=statement_id(statement))


def body(since: int, until: int | str | None, **more: Any) -> dict[str, Any]:
    end = {"until": day(until).isoformat() if isinstance(until, int) else until} if until is not None else {}
    return {"kind": "axis", "for": {"instrument_name": "Raman 1"}, "from": day(since).isoformat(), **end, **more}


@st.composite
def histories(draw: st.DrawFn) -> list[Statement]:
    """Certificates, some of which cut others, and revocations; one project of three is trusted."""
    found: list[Statement] = []
    trusts = Statement("", "lab", TRUST, About(project="lab"), "user", "2026-11-01", "", body={"whose": ["beamline"]})
    found.append(replace(trusts, mfid=statement_id(trusts)))
    for number in range(draw(st.integers(1, 10))):
        since = draw(st.integers(0, DAYS - 1))
        until = draw(st.one_of(st.none(), st.just(NEXT), st.integers(since + 1, DAYS)))
        project = draw(st.sampled_from(["lab", "lab", "beamline", "other"]))
        names = [statement.mfid for statement in found if statement.verb == CERTIFY]
        over = sorted(draw(st.sets(st.sampled_from(names), max_size=3))) if names else []
        on, why = dataset(draw(st.integers(0, 3))), str(number)
        kind = draw(st.sampled_from([CERTIFY, CERTIFY, CERTIFY, REVOKE]))
        if kind == CERTIFY:
            more = {"over": over} if over else {}
            found.append(stated(CERTIFY, body(since, until, **more), on, project, why))
        elif kind == REVOKE and len(found) > 1:
            statement = Statement("", project, REVOKE, About(), "user", "2026-11-01", why, revokes=(found[-1].mfid,))
            found.append(replace(statement, mfid=statement_id(statement)))
    return found


def by_the_day(history: list[Statement]) -> dict[str, set[int]]:
    """On which days each certificate is valid, by the definition, day by day."""
    standing = in_force(history)
    certificates = {mfid: statement for mfid, statement in standing.statements.items() if statement.verb == CERTIFY}
    found = {}
    for mfid, statement in certificates.items():
        begins = [number(other) for other in certificates.values() if other.project == statement.project]
        end = statement.body.get("until")
        if end == NEXT:
            last = min((begin for begin in begins if begin > number(statement)), default=LAST)
        else:
            last = number(statement, "until") if end else LAST
        days = set(range(number(statement), min(last, DAYS + 5)))
        for other in certificates.values():
            if mfid in (other.body.get("over") or ()) and standing.counts(other, statement.project):
                has_end = other.body.get("until") not in (None, NEXT)
                days -= set(range(number(other), number(other, "until") if has_end else LAST))
        found[mfid] = days
    return found


def number(statement: Statement, key: str = "from") -> int:
    return (datetime.fromisoformat(statement.body[key]) - DAY0).days


@settings(max_examples=150, deadline=None)
@given(histories(), st.randoms())
def test_what_is_left_of_certificates_is_that_of_a_calendar_in_any_order_of_arrival(
    history: list[Statement], chance: random.Random
) -> None:
    expected = by_the_day(history)
    found = {one.statement: one for one in certificates_of(in_force(history))}
    days = {mfid: {at for at in range(DAYS + 5) if one.span_at(day(at))} for mfid, one in found.items()}
    assert days == expected
    shuffled = [*history, *history[:2]]
    chance.shuffle(shuffled)
    assert certificates_of(in_force(shuffled)) == certificates_of(in_force(history))


@settings(max_examples=100, deadline=None)
@given(histories(), st.integers(0, DAYS))
def test_the_choice_and_its_neighbours_are_those_of_a_search_through_all(history: list[Statement], at: int) -> None:
    standing = in_force(history)
    certificates = counting_certificates(standing, "lab")
    found = Calibrations(certificates).fitting("axis", {"instrument_name": "Raman 1"}.get, day(at))
    spans = [(span, one) for one in certificates for span in one.spans]
    assert {one.statement for one in found.valid} == {
        span.statement for (since, until), span in spans if since <= day(at) < until
    }
    assert (found.before and found.before.limit) == max(
        (until for (_, until), _ in spans if until <= day(at)), default=None
    )
    assert (found.after and found.after.limit) == min(
        (since for (since, _), _ in spans if since > day(at)), default=None
    )


def certificate(since: int, until: int | None = None, **more: Any) -> Certificate:
    statement = stated(CERTIFY, {**body(since, until), **more}, dataset(since))
    (found,) = certificates_of(in_force([statement]))
    return found


def test_ranges_are_half_open_and_instruments_have_their_exact_names() -> None:
    calibrations = Calibrations([certificate(0, 10), certificate(10, 20)])

    def chosen(at: datetime, instrument: str = "Raman 1") -> list[str]:
        return [one.dataset for one in calibrations.fitting("axis", {"instrument_name": instrument}.get, at).valid]

    assert chosen(day(0)) == [dataset(0)]
    assert chosen(day(10) - timedelta(microseconds=1)) == [dataset(0)]
    assert chosen(day(10)) == [dataset(10)]
    assert chosen(day(20)) == []
    assert chosen(day(5), "Raman 2") == chosen(day(5), "RAMAN 1") == []
    contradicting = Calibrations([certificate(0, 20), certificate(1, 10)])
    valid = contradicting.fitting("axis", {"instrument_name": "Raman 1"}.get, day(10)).valid
    assert [one.dataset for one in valid] == [dataset(0)]


def test_conditions_and_fields_say_of_which_data_and_what_lacks_them_has_none() -> None:
    fine = certificate(0, where="metadata.grating == 1800", **{"for": {"metadata.laser_nm": "532"}})
    calibrations = Calibrations([fine])

    def has(**fields: Any) -> bool:
        return bool(calibrations.fitting("axis", lambda name: fields.get(name.replace(".", "_")), day(3)).valid)

    assert has(metadata_laser_nm=532.0, metadata_grating=1800)
    assert not has(metadata_laser_nm=532, metadata_grating=600)
    assert not has(metadata_laser_nm=532)
    assert not has(metadata_grating=1800)
    assert not has(metadata_laser_nm=532, metadata_grating="none")


@pytest.mark.parametrize("stated", [633, "633", "1.10", True])
@pytest.mark.parametrize("data", [633, 633.0, "1.1", "true"])
def test_a_certificate_fits_equal_values(stated: object, data: object) -> None:
    calibrations = Calibrations([certificate(0, **{"for": {"metadata.laser_nm": stated}})])
    fits = bool(calibrations.fitting("axis", {"metadata.laser_nm": data}.get, day(3)).valid)
    assert fits == is_equal(stated, data)


def test_a_statement_that_is_not_understood_certifies_nothing() -> None:
    bodies = [{**body(0, 5), "from": "some day"}, {**body(0, 5), "for": ["x"]}, {**body(0, 5), "where": "import os"}]
    bodies += [{**body(0, 5), "kind": ""}, {**body(0, 5), "for": {"instrument_name": ["Raman 1"]}}]
    assert certificates_of(in_force([stated(CERTIFY, one, dataset(1)) for one in bodies])) == []
    first = stated(CERTIFY, body(0, 5), dataset(1))
    other = stated(CERTIFY, body(0, 5, kind="flat", over=[first.mfid]), dataset(2))
    left = {one.kind: (one.who, one.spans) for one in certificates_of(in_force([first, replace(other, who="Ada")]))}
    assert left == {"axis": ("user", ((day(0), day(5)),)), "flat": ("Ada", ((day(0), day(5)),))}, "of other kinds"
