"""Ingestion: what the server finds in uploaded files by itself."""
