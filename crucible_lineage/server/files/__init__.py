"""Files: their bytes on disk, upload sessions, and signed links."""
