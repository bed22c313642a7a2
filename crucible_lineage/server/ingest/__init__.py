"""Ingestion: what the server finds in uploaded files."""

from crucible_lineage.server.readers import Found

__all__ = ["Found"]
