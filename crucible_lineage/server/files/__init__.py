"""Files: their bytes on disk, the uploads that bring them, and the links by which they are fetched."""
