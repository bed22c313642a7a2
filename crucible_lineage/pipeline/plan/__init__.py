"""What would run, and why: steps expanded over their inputs, results looked up."""
