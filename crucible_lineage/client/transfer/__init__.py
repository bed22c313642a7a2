"""Bytes between a disk and storage: uploads of every kind, downloads, and what was begun and can be continued."""
