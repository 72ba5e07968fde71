"""What is left of a user's budgets, for login nodes."""
