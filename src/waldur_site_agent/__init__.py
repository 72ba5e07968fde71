"""The site agent of Waldur: makes marketplace orders come true, and keeps them true."""

__version__ = "2.0.0a1"
