"""What many tests need: a Waldur, a cluster, and fresh agents between them."""

from harness.house import COMPONENTS, House, a_house
from harness.killing import Guillotine, KilledError
from harness.patience import PATIENCE_SECONDS, eventually
from harness.processes import Installation, Service, installed

__all__ = [
    "COMPONENTS",
    "PATIENCE_SECONDS",
    "Guillotine",
    "House",
    "Installation",
    "KilledError",
    "Service",
    "a_house",
    "eventually",
    "installed",
]
