"""Objects for Python and notebooks: a catalogue, its datasets, tables, plans, runs and lineages."""
