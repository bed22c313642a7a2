"""Inspection of the functions and commands of steps before they run."""
