"""Impact and parts of graphs, against networkx and against brute force on random graphs."""

from __future__ import annotations

from itertools import pairwise

import networkx
from hypothesis import given, settings
from hypothesis import strategies as st

from crucible_lineage.lineage.compare import impact_of_dataset
from crucible_lineage.lineage.graph import LineageGraph
from crucible_lineage.lineage.model import Edge, Node

SOME = settings(max_examples=60, deadline=None)
names = st.integers(0, 7).map(lambda number: f"d{number}")
graphs = st.lists(st.tuples(names, names), max_size=20).map(
    lambda ends: LineageGraph([Node(f"d{n}") for n in range(8)], [Edge(*pair) for pair in ends])
)


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
