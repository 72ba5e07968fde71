"""A plugin as universities wrote them for version 1 of the agent: shared folders of a file server.

It imports what such plugins import and overrides every method that this version calls.
"""
