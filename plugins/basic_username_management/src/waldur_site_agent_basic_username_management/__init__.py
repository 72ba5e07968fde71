"""Username backends: one that makes none, and one that makes them from a template."""
