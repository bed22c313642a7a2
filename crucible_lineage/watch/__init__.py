"""What arrived or changed, and what is still to be done for it."""
