"""Values of results: the kinds that there are, and how each is kept as files of a dataset and read again."""
