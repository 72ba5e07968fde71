"""A simulated accounting manager for trying, showing and testing without the real one.

It follows the administrator's guide, not experiments: there was no real one to compare with.
"""

from waldur_site_agent.backends.simulation import HungError
from waldur_site_agent_moab.simulator.simulated import SimulatedMam, write_executables
from waldur_site_agent_moab.simulator.state import Outage, SimMam

__all__ = ["HungError", "Outage", "SimMam", "SimulatedMam", "write_executables"]
