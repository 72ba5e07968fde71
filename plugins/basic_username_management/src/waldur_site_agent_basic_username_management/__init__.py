"""Username backends: one that generates none, and one that uses a template."""
