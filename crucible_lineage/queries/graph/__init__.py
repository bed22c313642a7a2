"""The lineage of datasets or of a project: fetched from Crucible, kept, with what is current in it."""
