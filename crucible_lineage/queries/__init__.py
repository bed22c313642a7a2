"""Questions to a catalogue: list, check, verify, diff, impact, explain, bundle. They change nothing."""
