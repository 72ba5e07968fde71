"""Which partitions and which QOS the associations of new members are for. Pure.

The customer names them with the order, the offering lists what there is, and ``backend_settings``
say whether either counts.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from waldur_site_agent.backends import Grant, PermanentError
from waldur_site_agent.model.marketplace import WaldurOffering
from waldur_site_agent_slurm.facts import Member
from waldur_site_agent_slurm.settings import SlurmSettings

_NAME = re.compile(r"[A-Za-z0-9_-]{1,100}")


def grant_of(
    settings: SlurmSettings, offering: WaldurOffering, attributes: Mapping[str, Any]
) -> Grant:
    """What new members of a resource get.

    Raises:
        PermanentError: what was ordered is not among what the offering has, or is no name.
    """
    offered = sorted(_lowered(each.partition_name for each in offering.partitions))
    if settings.enforce_offering_partitions and offered:
        partitions = tuple(_checked("partition", name) for name in offered)
    elif settings.default_partition:
        partitions = (settings.default_partition.lower(),)
    else:
        partitions = ()
    qos = _ordered(attributes, "qos")
    if not qos or not _is_qos_enforced(settings, offering):
        return Grant(partitions)
    chosen = _ordered(attributes, "partition")
    if chosen:
        listed = frozenset(offered) or _lowered(settings.allowed_partitions)
        if listed or partitions:  # otherwise members may use every partition anyway
            _refuse_unless_listed("partition", chosen, listed or frozenset(partitions))
        partitions = (chosen,)
    offered_qos = _qos_offered(offering, partitions)
    _refuse_unless_listed("QOS", qos, offered_qos or _lowered(settings.allowed_qos))
    return Grant(partitions, qos)


def is_given(member: Member, grant: Grant) -> bool:
    """Whether a member's associations are as a grant says."""
    partitions = not grant.partitions or frozenset(grant.partitions) == member.partitions
    qos = not grant.qos or (member.qos == grant.qos and member.default_qos == grant.qos)
    return partitions and qos


def _is_qos_enforced(settings: SlurmSettings, offering: WaldurOffering) -> bool:
    if not settings.qos_enforcement_enabled:
        return False
    if settings.enforce_offering_qos is not None:
        return settings.enforce_offering_qos
    return offering.plugin_options.get("enforce_qos") is True


def _qos_offered(offering: WaldurOffering, partitions: Collection[str]) -> frozenset[str]:
    """The QOS that the offering lists: of these partitions where they have any, else all."""
    of_partitions = _lowered(
        option.qos_name
        for partition in offering.partitions
        if partition.partition_name.lower() in partitions
        for option in partition.qos_options
    )
    of_all = _lowered(
        option.qos_name for partition in offering.partitions for option in partition.qos_options
    )
    profiles = _lowered(profile.name for profile in offering.qos_profiles)
    return of_partitions or of_all | profiles


def _ordered(attributes: Mapping[str, Any], key: str) -> str:
    value = attributes.get(key)
    return _checked(key, value).lower() if value not in (None, "") else ""


def _checked(kind: str, value: object) -> str:
    if isinstance(value, str) and _NAME.fullmatch(value):
        return value
    raise PermanentError(
        f"the {kind} {str(value)[:100]!a} cannot be used in Slurm: a name is made of the letters "
        "a-z, digits, _ and -; correct it in Waldur"
    )


def _refuse_unless_listed(kind: str, name: str, listed: Collection[str]) -> None:
    if name in listed:
        return
    if not listed:
        raise PermanentError(
            f"the order asks for the {kind} {name!r}, but nothing lists what may be ordered",
            remedy=f"list it at the offering in Waldur, or in backend_settings.{_KEYS[kind]}",
        )
    raise PermanentError(
        f"the order asks for the {kind} {name!r}, which the offering does not have (it has "
        f"{', '.join(sorted(listed))}); order another, or add it to the offering in Waldur, or, if "
        f"that lists none, to backend_settings.{_KEYS[kind]}"
    )


_KEYS = {"QOS": "allowed_qos", "partition": "allowed_partitions"}


def _lowered(names: Iterable[str]) -> frozenset[str]:
    return frozenset(name.lower() for name in names if name)
