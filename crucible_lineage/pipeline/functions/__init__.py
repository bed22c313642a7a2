"""What is known of the function or command of a step, before it runs."""
