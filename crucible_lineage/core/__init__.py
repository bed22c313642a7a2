"""Local state: the mirror of a Crucible, the journal of runs and results, and which results are current."""
