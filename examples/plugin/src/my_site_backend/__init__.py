"""A backend of this site's own for waldur-site-agent."""
