"""This machine: files, their hashes, folders and locks, tables, pictures, memory."""
