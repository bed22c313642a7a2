"""What Prefect shows of our runs: the state that one ends with, its artifacts, and events of what is new."""
