"""The data folder: file cache, folders of attempts, disk usage, and the id of this machine."""
