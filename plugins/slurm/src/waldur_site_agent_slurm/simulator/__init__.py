"""A simulated Slurm for trying, showing and testing without a cluster.

It answers what the plugin sends as 22.05 or 24.11 does; a test sends the same commands to a real
one and compares. It is no scheduler: jobs run until they are cancelled or ended by the test.
"""

from waldur_site_agent.backends.simulation import HungError
from waldur_site_agent_slurm.simulator.request import write_executables
from waldur_site_agent_slurm.simulator.showing import render_tree
from waldur_site_agent_slurm.simulator.simulated import SimulatedSlurm
from waldur_site_agent_slurm.simulator.state import Outage, SimState, Version

__all__ = [
    "HungError",
    "Outage",
    "SimState",
    "SimulatedSlurm",
    "Version",
    "render_tree",
    "write_executables",
]
