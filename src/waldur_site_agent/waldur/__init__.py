"""The gateway: the only code that knows Waldur's REST API."""
