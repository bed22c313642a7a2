"""Commands that ask: what is there, where it comes from, what differs, whether it holds."""
