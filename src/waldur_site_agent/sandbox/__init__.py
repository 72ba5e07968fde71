"""An embedded Waldur for the demo, for tests and for trying a configuration."""
