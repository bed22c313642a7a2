"""What a project holds, as its users ask for it: a list, one dataset, its files, runs; and which of them is meant."""
