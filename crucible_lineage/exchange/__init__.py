"""Datasets brought from one Crucible to another, under the same ids: compared first, then sent, parents first."""
