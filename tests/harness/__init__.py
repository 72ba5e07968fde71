"""What many tests need: a Waldur, a cluster, and fresh agents between them."""

from harness.killing import KilledError, KillSwitch
from harness.patience import eventually, patience
from harness.processes import Installation, Service, installed
from harness.testbed import COMPONENTS, Relay, SimulatedSite, a_simulated_site

__all__ = [
    "COMPONENTS",
    "Installation",
    "KillSwitch",
    "KilledError",
    "Relay",
    "Service",
    "SimulatedSite",
    "a_simulated_site",
    "eventually",
    "installed",
    "patience",
]
