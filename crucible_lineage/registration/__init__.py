"""Registration of results as datasets, exactly once: claimed, filled, completed."""
