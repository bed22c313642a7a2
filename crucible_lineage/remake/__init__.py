"""Results made again from what is kept with them, and compared with what is recorded."""
