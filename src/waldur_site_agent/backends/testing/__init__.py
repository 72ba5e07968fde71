"""A conformance suite for backend plugins: the contract as tests that a plugin runs on itself.

Needs pytest. In a plugin's tests::

    from waldur_site_agent.backends.testing import BackendConformance

    class TestMyBackend(BackendConformance):
        @pytest.fixture
        def backend(self) -> Backend:
            return MyBackend(...)

        people = ("ada", "bob", "cyd")
        components = ("cpu", "mem")

What the contract cannot do (an account of somebody else, a backend that is away) is asked for by
hooks; :class:`Hooks` describes each. A test whose hook a plugin does not offer is skipped and says
so. Backends that cannot tell everything subclass :class:`PartialBackendConformance` instead.
"""

from waldur_site_agent.backends.testing.conformance import BackendConformance
from waldur_site_agent.backends.testing.hooks import AWKWARD_NAMES, Hooks, Spent
from waldur_site_agent.backends.testing.partial import PartialBackendConformance

__all__ = ["AWKWARD_NAMES", "BackendConformance", "Hooks", "PartialBackendConformance", "Spent"]
