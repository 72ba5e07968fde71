"""A backend for waldur-site-agent on the commands of ``tallyctl``."""
