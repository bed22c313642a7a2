"""Whether datasets are what their records say: ids, links, files, and what is missing."""
