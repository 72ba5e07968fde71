"""Provisions Waldur Marketplace orders on an HPC site and keeps them in sync."""

__version__ = "2.0.0a1"
