"""What is known of a dataset: its recipe, its record, and the schema of both."""
