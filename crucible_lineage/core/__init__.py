"""What one machine knows and did: the mirror of a Crucible, the journal of runs and results, which results hold."""
