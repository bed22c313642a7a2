"""What steps print, and faults of ours: heard, bounded, blotted, kept."""
