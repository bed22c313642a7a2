"""Routes of datasets, samples, projects and instruments: records, metadata, links, search, deletion."""
