"""Compare datasets with their provenance records: ids, links, files, and missing data."""
