"""Routes of files: lists, uploads, downloads, ingestion, thumbnails."""
