"""What many tests need: a Waldur, a cluster, and fresh agents between them."""

from harness.house import COMPONENTS, House, a_house
from harness.killing import Guillotine, KilledError
from harness.processes import Installation, Service, eventually, installed

__all__ = [
    "COMPONENTS",
    "Guillotine",
    "House",
    "Installation",
    "KilledError",
    "Service",
    "a_house",
    "eventually",
    "installed",
]
