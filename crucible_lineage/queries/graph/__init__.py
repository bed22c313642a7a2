"""The lineage of datasets or of a project, fetched from Crucible, with the state of each dataset."""
