"""What lies two imports away from a step."""
