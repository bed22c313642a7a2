"""Calls about datasets: their records, files, links, metadata, thumbnails, and deletion."""
