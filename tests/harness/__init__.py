"""What many tests need: a Waldur, a cluster, and fresh agents between them."""

from harness.house import COMPONENTS, House, a_house
from harness.killing import Guillotine, KilledError

__all__ = ["COMPONENTS", "Guillotine", "House", "KilledError", "a_house"]
