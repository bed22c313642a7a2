"""Lineage of datasets: the graph, its checks and comparisons, and ways to show it. Pure: no I/O, no client."""
