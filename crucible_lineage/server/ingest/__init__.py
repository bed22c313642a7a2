"""Ingestion: what the server finds in uploaded files by itself."""

from crucible_lineage.server.ingest.formats.findings import Found

__all__ = ["Found"]
