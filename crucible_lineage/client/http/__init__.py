"""How a call goes over the wire: the session with its key, retries, pages, and answers that are errors."""
