"""What people hold in Python and in notebooks: a catalogue, its datasets, tables, plans, runs and lineages."""
