"""Planning: steps expanded over their inputs, results looked up, and what would run for which cause."""
