"""Pipelines: declared in YAML, checked, planned, run."""
