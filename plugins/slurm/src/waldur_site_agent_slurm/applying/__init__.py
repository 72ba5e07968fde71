"""Actions become commands, in the order that Slurm needs, and outcomes from what it then has."""

from waldur_site_agent_slurm.applying.run import Applying
from waldur_site_agent_slurm.applying.work import Patience

__all__ = ["Applying", "Patience"]
