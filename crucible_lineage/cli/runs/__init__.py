"""Commands that run steps: run, plan, rerun; their progress, and the output of steps."""
