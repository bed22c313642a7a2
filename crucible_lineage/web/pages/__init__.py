"""The pages, by subject. Each is a function from a reader to a response."""
