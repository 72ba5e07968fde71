"""What is known of published plugins of version 1: what they tell, and which cannot run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What the classes of a plugin do not say of themselves."""

    tells_members: bool = False
    """Whether what it pulls shows the members; if not, the agent remembers them."""
    keeps_ids: bool = False
    """Whether it creates resources under the id that it is given, although its class creates by
    itself; what an interrupted creation left is then found by that id."""
    marks_resources: bool = False
    """Whether it marks what it creates with the resource's UUID, so that a creation that was
    interrupted can be repeated without making a second one."""


PROFILES: Mapping[str, Profile] = {
    "ceph_s3": Profile(keeps_ids=True),
    "harbor": Profile(keeps_ids=True, marks_resources=True),
    "hetzner": Profile(marks_resources=True),
    "k8s-ut-namespace": Profile(tells_members=True),
    "mup": Profile(tells_members=True),
    "nextcloud": Profile(tells_members=True),
    "okd": Profile(tells_members=True, keeps_ids=True),
    "proxmox": Profile(marks_resources=True),
    "rancher": Profile(tells_members=True),
}
"""By the name of the entry point; a class may have both as attributes of its own."""

_KEYS = (
    "its resources are API keys with a life of their own (given, rotated and pruned by the agent "
    "of version 1), which version 2 does not manage"
)
_CORE = "it reaches into the inner modules of version 1 (identities of agents, message broker)"
_SECOND_CLIENT = (
    "it keeps members by itself, with a Waldur client and a token of its own, beside the guard "
    "that bounds removals"
)

REFUSED: Mapping[str, str] = {
    "croit_s3": (
        "its creation reads an attribute of resources (organization) that Waldur's API does not "
        "have; ceph_s3 is its successor"
    ),
    "envoy": f"{_KEYS}; its usage can be reported by envoy-usage",
    "ldap-roles": _SECOND_CLIENT,
    "litellm": f"{_KEYS}; its usage can be reported by litellm-usage",
    "rancher-kc-crd": _SECOND_CLIENT,
    "waldur": _CORE,
}
"""By the name of the entry point, why the plugin cannot run."""
