"""Copying datasets from one Crucible to another under the same ids: comparing first, then sending parents first."""
