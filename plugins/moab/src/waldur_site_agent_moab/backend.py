"""The MOAB backend."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from waldur_site_agent.backends import Backend, BackendState, PermanentError
from waldur_site_agent_moab.settings import MoabSettings

if TYPE_CHECKING:
    from collections.abc import Iterable

    from waldur_site_agent.backends import BackendSettings, Check
    from waldur_site_agent.model.placement import Placement, ResourceRequest


class MoabBackend(Backend):
    """Resources are accounts with a fund of their own."""

    Settings: ClassVar[type[BackendSettings]] = MoabSettings

    def diagnose(self) -> Iterable[Check]:
        """See :meth:`Backend.diagnose`."""
        return ()

    def place(self, request: ResourceRequest, slug: str) -> Placement:
        """See :meth:`Backend.place`."""
        raise PermanentError(f"{request.resource_name}: {slug} cannot be placed yet")

    def observe(self, ids: Iterable[str] | None = None) -> BackendState:  # noqa: ARG002 - one read has all
        """See :meth:`Backend.observe`."""
        return BackendState(resources={})
