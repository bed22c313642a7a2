"""What would run, and why: inputs found, steps expanded, results looked up."""
