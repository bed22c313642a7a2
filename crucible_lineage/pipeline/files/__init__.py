"""Files of inputs and results, here and in buckets: found, fetched, published."""
