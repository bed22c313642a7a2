"""A run: its steps scheduled on an engine, what then is current, what is told of it."""
