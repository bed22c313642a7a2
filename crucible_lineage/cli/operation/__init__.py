"""Commands for operators: deploy, watch, serve, deliver, status, and disk space."""
