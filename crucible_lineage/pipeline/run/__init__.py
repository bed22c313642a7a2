"""Runs: scheduling steps on an engine, making results current, and reporting."""
