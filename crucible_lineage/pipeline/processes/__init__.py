"""Processes of steps: starting, supervising and ending them with their descendants; reporting failures."""
