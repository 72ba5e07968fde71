"""Events from Waldur's message broker, and the scopes they ask the agent to look at."""
