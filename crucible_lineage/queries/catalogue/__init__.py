"""The contents of a project for its users: lists, one dataset, its files, runs; and how names are resolved."""
