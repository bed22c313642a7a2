"""Commands of who operates it: deploy, watch, serve, deliver, what ran, free room on the disk."""
