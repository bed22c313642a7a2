"""The HTTP layer: the connection with its key, retries, pages, and errors."""
