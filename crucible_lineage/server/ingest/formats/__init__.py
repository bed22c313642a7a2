"""File formats: the metadata, thumbnail and dataset fields that each file provides."""
