"""Engines, which execute steps: in threads of this process."""
