"""Partners in time, compared with a search over all candidates; ten thousand are matched quickly."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from crucible_lineage.pipeline.declare.parts import TimeMatch
from crucible_lineage.pipeline.plan.partners import Candidates, RelationRow

START = datetime(2024, 5, 10, tzinfo=UTC)


def at(minutes: int) -> datetime:
    return START + timedelta(minutes=minutes)


spans = st.tuples(st.integers(0, 60), st.integers(0, 12)).map(lambda pair: (at(pair[0]), at(sum(pair))))
values = st.sampled_from([("A",), ("B",)])
numbered = st.lists(st.tuples(values, spans, st.sampled_from("abcd")), max_size=12)
rules = st.builds(
    lambda nearest, within, otherwise: TimeMatch(nearest=nearest, within=within, **{"else": otherwise}),
    st.sampled_from(["before", "after", "either"]),
    st.sampled_from([None, 0, 300, 1800]),
    st.sampled_from([None, "nearest", "earliest", "none"]),
)


def rows_of(drawn: Sequence[tuple[tuple[str], tuple[datetime, datetime], str]]) -> list[RelationRow]:
    return [RelationRow(key, str(key), values, span, f"{tie}{key:02}") for key, (values, span, tie) in enumerate(drawn)]


def side_and_distance(row: RelationRow, other: RelationRow, side: str) -> float | None:
    """Return the distance of a candidate on a side of the row; None if it is not on that side."""
    before, after = (row.last - other.last).total_seconds(), (other.first - row.first).total_seconds()
    if side == "before":
        return before if before >= 0 else None
    if side == "after":
        return after if after >= 0 else None
    distances = [distance for distance in (before, after) if distance >= 0]
    return min(distances, default=0.0)


def brute(row: RelationRow, rows: Sequence[RelationRow], rule: TimeMatch) -> set[int] | None:
    """Return the keys of the nearest candidates, any of which may be chosen; None if there are none."""
    equal = [relation_row for relation_row in rows if relation_row.values == row.values]

    def nearest(side: str) -> set[int] | None:
        found = {
            relation_row.key: distance
            for relation_row in equal
            if (distance := side_and_distance(row, relation_row, side)) is not None
        }
        within = {key: far for key, far in found.items() if far == min(found.values())}
        near = {key for key, far in within.items() if rule.within is None or far <= rule.within}
        return near or None

    found = nearest(rule.sides[0])
    if found is None and equal and rule.otherwise == "nearest":
        found = nearest("either")
    if found is None and equal and rule.otherwise == "earliest":
        first = min(equal, key=lambda relation_row: (relation_row.first, relation_row.tie))
        far = side_and_distance(row, first, "either")
        found = {first.key} if rule.within is None or (far or 0) <= rule.within else None
    return found


@settings(max_examples=150, deadline=None)
@given(drawn=numbered, subject=st.tuples(values, spans), rule=rules)
def test_the_choice_agrees_with_a_search_over_all_candidates(drawn, subject, rule) -> None:
    rows, row = rows_of(drawn), RelationRow(0, "subject", subject[0], subject[1], "subject")
    partners = Candidates("dark", rows, ["instrument_name"], rule).choose(row)
    expected = brute(row, rows, rule)
    assert (partners.chosen[0].key in expected) if expected else not partners.chosen
    assert bool(partners.fault) == (not partners.chosen)
    if not partners.chosen:
        nothing_equal = not any(relation_row.values == row.values for relation_row in rows)
        assert partners.absent == (nothing_equal or rule.otherwise == "none")


@settings(max_examples=80, deadline=None)
@given(drawn=numbered, subject=spans, shuffled=st.randoms())
def test_the_order_of_candidates_does_not_matter_and_ids_decide_between_equal_times(drawn, subject, shuffled) -> None:
    rows = rows_of([(("A",), span, tie) for _, span, tie in drawn])
    row, rule = RelationRow(0, "subject", ("A",), subject), TimeMatch(nearest="before")
    chosen = Candidates("dark", rows, ["x"], rule).choose(row).chosen
    mixed = list(rows)
    shuffled.shuffle(mixed)
    assert Candidates("dark", mixed, ["x"], rule).choose(row).chosen == chosen
    if chosen:
        latest = max(
            (relation_row for relation_row in rows if relation_row.last <= row.last),
            key=lambda relation_row: (relation_row.last, relation_row.tie),
        )
        assert chosen[0].key == latest.key
