"""Execution of one step: staging its inputs, calling its function, checking its outputs, queueing their delivery."""
