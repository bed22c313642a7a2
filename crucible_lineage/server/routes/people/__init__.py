"""Routes of people and programs: the caller's account, other users, their part in resources."""
