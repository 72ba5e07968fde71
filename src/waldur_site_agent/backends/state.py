"""What a backend shows of itself: what it can tell, and what a reading found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field
from decimal import Decimal

from waldur_site_agent.backends.actions import Access
from waldur_site_agent.model.standing import Detail, MemberStanding, Refusal, ResourceStanding


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a backend can tell, beyond the kinds of action that it supports.

    The defaults are those of a backend that can be read completely. Whatever a backend cannot
    tell, the agent remembers in the ``backend_metadata`` of the resource in Waldur.
    """

    tells_members: bool = True
    """Whether ``observe`` shows who is in a resource."""
    tells_limits: bool = True
    """Whether ``observe`` shows limits."""
    tells_access: bool = True
    """Whether ``observe`` shows that a resource is paused or downscaled."""
    tells_all: bool = True
    """Whether ``observe()`` shows everything that exists. If not: the resources that Waldur names
    (:meth:`Backend.hear`), and those named by ``ids``."""
    recognizes_unfinished: bool = True
    """Whether parent and organization tell what an interrupted creation left from what belongs to
    somebody else. If not, the name is noted in Waldur before each creation."""
    keeps_deleted: bool = False
    """Whether deleted resources stay, empty. What is in the right place without members may then be
    one of them, so names are noted as without ``recognizes_unfinished``."""
    names_once: bool = False
    """Whether the name of a terminated resource is never given again."""
    more_names: int = 10
    """How many further names are tried where the offering names by project."""
    assigns_ids: bool = False
    """Whether the backend names resources itself; their ids are then kept as Waldur has them."""
    finishes_later: bool = False
    """Whether outcomes may be pending."""
    usage_may_decrease: bool = False
    """Whether usage is a level, such as bytes stored, so that a lower figure is no mistake."""
    keeps_usage: bool = True
    """Whether the usage of a deleted resource can still be read. If not, its last usage is
    reported before the deletion, as far as that succeeds, and the order does not wait for it."""
    makes_project_directories: bool = False
    """Whether new resources get a directory (:class:`CreateProjectDirectory`)."""
    needs_facts: bool = False
    """Whether :meth:`Backend.hear` is to be called, which costs one more list in each pass."""

    @property
    def adopts_unfinished(self) -> bool:
        """Whether what an interrupted creation left is recognised without a note in Waldur."""
        return self.recognizes_unfinished and not self.keeps_deleted


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendResource:
    """One named thing of the backend: a resource of ours, a container, or a stranger's account."""

    id: str
    parent: str | None = None
    organization: str = ""
    members: Set[str] = frozenset()
    limits: Mapping[str, Decimal] = field(default_factory=dict)
    """Only what is set on this very resource, in backend units; nothing inherited."""
    limits_are_known: bool = True
    """False where a limit is set that could not be read: one that is missing above may be there."""
    member_limits: Mapping[str, Mapping[str, Decimal]] = field(default_factory=dict)
    job_limits: Mapping[str, Decimal] = field(default_factory=dict)
    """What a single job may use, of backends that support ``SetBudget``; set on this resource."""
    share: int | None = None
    """Its share among its siblings, of such backends; ``None`` if it has none of its own."""
    access: Access | None = None
    """``None`` when the backend has no such notion or the site has set something of its own."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    is_complete: bool = True
    """False where an interrupted creation is not seen in the limits: a part that every resource
    has is missing, and ``CreateResource`` makes it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendState:
    """Everything that carries a name in the backend, from one complete read.

    A read that failed or came back short is never a state: it is a :class:`TemporaryError`.
    """

    resources: Mapping[str, BackendResource]

    def members_of(self, resource: str) -> Set[str]:
        """Who is in a resource; nobody where there is none."""
        found = self.resources.get(resource)
        return found.members if found is not None else frozenset()

    def children(self, resource: str) -> tuple[str, ...]:
        """The names of the accounts directly below ``resource``, sorted."""
        return tuple(sorted(r.id for r in self.resources.values() if r.parent == resource))


def standing_of(
    found: BackendResource | None, users: Iterable[str], capabilities: Capabilities
) -> ResourceStanding:
    """What a reading says of one resource and of users in it, as far as the backend can tell."""
    if found is None:
        missing = Refusal(rule="the resource", value="the backend does not have it")
        return ResourceStanding(exists=False, refusals=(missing,))
    details = [Detail("below", found.parent)] if found.parent else []
    if capabilities.tells_limits:
        details += [Detail(f"limit of {n}", f"{v:f}") for n, v in sorted(found.limits.items())]
    if capabilities.tells_access and found.access is not None:
        details.append(Detail("access", found.access.value))
    if capabilities.tells_members:
        details.append(Detail("members", str(len(found.members))))
    is_paused = capabilities.tells_access and found.access is Access.PAUSED
    paused = Refusal(rule="access", value="the resource is paused")
    return ResourceStanding(
        exists=True,
        details=tuple(details),
        refusals=(paused,) if is_paused else (),
        members={user: _standing_of_member(user, found, capabilities) for user in users},
    )


def _standing_of_member(
    user: str, found: BackendResource, capabilities: Capabilities
) -> MemberStanding:
    if not capabilities.tells_members:
        return MemberStanding()
    is_member = user in found.members
    outside = Refusal(rule="membership", value=f"{user} is not in {found.id}")
    limits = sorted(found.member_limits.get(user, {}).items())
    return MemberStanding(
        is_member=is_member,
        details=tuple(Detail(f"own limit of {n}", f"{v:f}") for n, v in limits),
        refusals=() if is_member else (outside,),
    )
