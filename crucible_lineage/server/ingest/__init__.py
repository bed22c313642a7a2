"""Ingestion: what the server finds in uploaded files."""

from crucible_lineage.server.ingest.formats.findings import Found

__all__ = ["Found"]
