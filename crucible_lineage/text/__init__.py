"""What people read: amounts, times, and the one gate for what may leave."""
