"""What a resource's backend metadata in Waldur remembers for the agent.

The agent keeps nothing itself, so two things are kept where every later agent finds them: how an
account was set up before it was restricted (keys that end in ``_before``), and whose limits the
agent has set (``limited_members``). Only what is remembered is ever undone; everything else was
made by the site. Keys that are not the agent's stay as they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from waldur_site_agent.backends import Access

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from waldur_site_agent.backends import BackendResource

Metadata = dict[str, object]

_BEFORE = "_before"
_LIMITED = "limited_members"
_SHOWN = ("qos", "default_qos", "member_qos")
"""What backends tell of an account; a key that is not told any more is not kept either."""


def settings_before(metadata: Mapping[str, object]) -> dict[str, str] | None:
    """How the account was set up before it was restricted; ``None`` if the agent did not do it."""
    before = {k.removesuffix(_BEFORE): str(v) for k, v in metadata.items() if k.endswith(_BEFORE)}
    return {key: value for key, value in before.items() if value} if before else None


def limited_members(metadata: Mapping[str, object]) -> frozenset[str]:
    """Whose limits the agent has set."""
    listed = metadata.get(_LIMITED)
    return (
        frozenset(str(name) for name in listed) if isinstance(listed, list | tuple) else frozenset()
    )


def is_restricted(found: BackendResource) -> bool:
    """Whether the account is as the agent sets up restricted ones."""
    return found.access in (Access.PAUSED, Access.DOWNSCALED)


def metadata_of(
    metadata: Mapping[str, object],
    found: BackendResource,
    wanted: Access | None,
    limited: Collection[str] = (),
) -> Metadata:
    """What a resource's metadata should be after the backend was looked at.

    Args:
        metadata: what it is now.
        found: the account as it is.
        wanted: how far it should be usable; ``None`` while an order decides about it.
        limited: whose limits the agent has set.

    What was so before a restriction is forgotten only when the restriction is neither wanted nor
    found any more. A restriction that is both, and that nobody remembers, was made by an agent
    that kept no such notes: it counts as ours.
    """
    keep = is_restricted(found) or wanted is not Access.NORMAL
    remembered = {k: v for k, v in metadata.items() if keep and k.endswith(_BEFORE)}
    if is_restricted(found) and wanted in (Access.PAUSED, Access.DOWNSCALED) and not remembered:
        remembered = {_SHOWN[0] + _BEFORE: ""}
    names: Metadata = {_LIMITED: sorted(limited)} if limited else {}
    return {**_foreign(metadata, found), **remembered, **names, **found.metadata}


def metadata_before_restricting(metadata: Mapping[str, object], found: BackendResource) -> Metadata:
    """What to write before an account is restricted, so that nothing gets lost."""
    before = {key + _BEFORE: value for key, value in found.metadata.items()}
    before = before or {_SHOWN[0] + _BEFORE: ""}
    kept = {_LIMITED: metadata[_LIMITED]} if _LIMITED in metadata else {}
    return {**_foreign(metadata, found), **kept, **before, **found.metadata}


def metadata_before_limiting(metadata: Mapping[str, object], limited: Collection[str]) -> Metadata:
    """What to write before limits of members are set, so that they can be withdrawn."""
    return {**metadata, _LIMITED: sorted(limited)} if limited else dict(metadata)


def _foreign(metadata: Mapping[str, object], found: BackendResource) -> Metadata:
    own = {*found.metadata, *_SHOWN, _LIMITED}
    return {k: v for k, v in metadata.items() if k not in own and not k.endswith(_BEFORE)}
