"""The data folder: the local store, the file cache, which machine this is."""
