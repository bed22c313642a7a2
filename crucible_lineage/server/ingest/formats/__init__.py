"""Formats of files: what each says of itself, as metadata, a thumbnail and fields of its dataset."""
