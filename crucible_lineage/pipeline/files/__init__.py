"""Files of inputs and results, local and in buckets: finding, fetching, publishing."""
