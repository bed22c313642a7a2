"""Datasets copied from one Crucible to another."""
