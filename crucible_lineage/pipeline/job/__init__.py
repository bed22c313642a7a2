"""One step made real: its inputs placed, its function called, its outputs looked at and handed on for delivery."""
