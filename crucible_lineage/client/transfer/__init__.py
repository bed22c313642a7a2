"""Transfer of bytes between disk and storage: uploads, downloads, and their continuation after an interruption."""
