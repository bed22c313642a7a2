"""Impact and parts of graphs, against networkx and against brute force on random graphs."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise

import networkx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crucible_lineage.lineage.compare import impact_of_dataset, impact_of_instrument
from crucible_lineage.lineage.graph import LineageGraph
from crucible_lineage.lineage.model import Edge, Node

SOME = settings(max_examples=60, deadline=None)
names = st.integers(0, 7).map(lambda number: f"d{number}")
graphs = st.lists(st.tuples(names, names), max_size=20).map(
    lambda ends: LineageGraph([Node(f"d{n}") for n in range(8)], [Edge(*pair) for pair in ends])
)


@SOME
@given(graphs, st.integers(0, 4), names)
def test_depth_counts_edges(graph, depth, start):
    distances = networkx.single_source_shortest_path_length(graph.nx, start)

    assert graph.ancestors(start) == networkx.ancestors(graph.nx, start)
    assert graph.descendants(start) == networkx.descendants(graph.nx, start)
    assert graph.descendants(start, depth) == {mfid for mfid, far in distances.items() if 0 < far <= depth}


@SOME
@given(graphs, names)
def test_impact_of_a_dataset_is_all_below_it_each_with_a_shortest_chain(graph, start):
    impact = impact_of_dataset(graph, start)

    expected = networkx.descendants(graph.nx, start)
    assert set(impact.ids) - {start} == expected
    for mfid in expected:
        chain = impact.chain(mfid)
        assert (chain[0], chain[-1]) == (start, mfid)
        assert all(ends in graph.edges for ends in pairwise(chain))
        assert len(chain) - 1 == networkx.shortest_path_length(graph.nx, start, mfid)


@pytest.mark.parametrize(("since", "until", "expected"), [(0, 0, 1), (1, None, 0), (None, None, 1), (None, -1, 0)])
def test_a_wrong_instrument_touches_what_comes_from_its_data_of_that_time(lab, since, until, expected):
    taken = lab.now
    scan = lab.raw("scan", instrument_name="Beamline 8.3.2", instrument_id="bl-832")
    lab.derived("corrected", "correct", scan)
    lab.derived("from elsewhere", "correct", lab.raw("other scan"))
    bounds = {
        "since": None if since is None else taken + timedelta(minutes=since),
        "until": None if until is None else taken + timedelta(minutes=until),
    }

    for name in ("Beamline 8.3.2", "bl-832"):
        assert len(impact_of_instrument(lab.graph, name, **bounds).ids) == expected
