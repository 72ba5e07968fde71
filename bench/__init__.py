"""What the agent costs: ``python -m bench`` prints a table."""
