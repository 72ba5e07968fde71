"""Loads plugins of version 1 and puts them behind backends of version 2."""

from __future__ import annotations

from importlib.metadata import EntryPoint

from waldur_site_agent.backends import Backend, PermanentError, UsernameBackend
from waldur_site_agent_v1_plugins import aliases
from waldur_site_agent_v1_plugins.known import PROFILES, REFUSED, Profile


def adapt(entry_point: EntryPoint, distribution: str) -> type[Backend] | type[UsernameBackend]:
    """A backend that runs the class behind an entry point.

    Raises:
        PermanentError: it cannot run; the text says why.
        Exception: its import failed.
    """
    name = entry_point.name
    if reason := REFUSED.get(name):
        raise PermanentError(
            f'"{name}" of {distribution} cannot run with version 2 of the agent: {reason}'
        )
    aliases.provide()
    loaded: object = entry_point.load()
    from waldur_site_agent_v1_plugins.interface.backend import backends  # noqa: PLC0415 - the SDK

    if isinstance(loaded, type) and issubclass(loaded, backends.BaseBackend):
        return _backend(name, distribution, loaded)
    if isinstance(loaded, type) and issubclass(loaded, backends.AbstractUsernameManagementBackend):
        from waldur_site_agent_v1_plugins.usernames import V1UsernameBackend  # noqa: PLC0415

        return type(loaded.__name__, (V1UsernameBackend,), {"cls": loaded, "name": name})
    raise PermanentError(
        f'"{entry_point.value}" of {distribution} is no backend of version 1 either; '
        f"ask the authors of {distribution}"
    )


def _backend(name: str, distribution: str, loaded: type) -> type[Backend]:
    from waldur_site_agent_v1_plugins.backend import V1Backend  # noqa: PLC0415 - imports the SDK
    from waldur_site_agent_v1_plugins.calls import V1Plugin  # noqa: PLC0415
    from waldur_site_agent_v1_plugins.interface.backend.backends import BaseBackend  # noqa: PLC0415

    if loaded.evaluate_pending_order is not BaseBackend.evaluate_pending_order:  # type: ignore[attr-defined]
        raise PermanentError(
            f'"{name}" of {distribution} cannot run with version 2 of the agent: it decides about '
            "orders before they are approved, which version 2 does not ask for"
        )
    known = PROFILES.get(name, Profile())
    profile = Profile(
        tells_members=getattr(loaded, "tells_members", known.tells_members),
        keeps_ids=getattr(loaded, "keeps_ids", known.keeps_ids),
        marks_resources=getattr(loaded, "marks_resources", known.marks_resources),
    )
    members = {"plugin": V1Plugin(name, distribution, loaded), "profile": profile}
    return type(loaded.__name__, (V1Backend,), members)
