"""Make results again from the sources kept with them, and compare with the recorded ones."""
