"""Results become datasets, exactly once: claimed, filled, completed."""
