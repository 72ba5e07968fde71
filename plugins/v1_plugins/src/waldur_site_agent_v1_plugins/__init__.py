"""Runs plugins that were written for version 1 of the agent, unchanged."""
