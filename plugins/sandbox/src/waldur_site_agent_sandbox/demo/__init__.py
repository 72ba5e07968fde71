"""The demo: an embedded Waldur, a simulated (or real) cluster, and the agent between them."""
