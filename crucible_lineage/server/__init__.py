"""The embedded Crucible: the service's HTTP API over SQLite and files on disk, for one machine."""
