"""Find new files and datasets, and what remains to be done for them."""
