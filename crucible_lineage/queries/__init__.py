"""What one asks a catalogue: list, check, verify, diff, impact, explain, bundle. Reads, changes nothing."""
