"""Actions become commands, one after the other, and outcomes from what is there afterwards."""

from waldur_site_agent_moab.applying.run import Applying

__all__ = ["Applying"]
