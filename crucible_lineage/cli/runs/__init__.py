"""Commands that make something: run, plan, rerun; how far they are, and what steps printed."""
