"""Which QOS an account has, should have, and had before it was restricted. Pure.

What an account had is kept as ``metadata`` by whoever asks for the restriction, in the form that
:func:`remembered` gives and :func:`before_restriction` reads.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from waldur_site_agent.backends import Access, PermanentError
from waldur_site_agent_slurm.facts import Account, Cluster
from waldur_site_agent_slurm.names import is_user_name
from waldur_site_agent_slurm.settings import SlurmSettings

_SETTINGS = {
    Access.NORMAL: "qos_default",
    Access.DOWNSCALED: "qos_downscaled",
    Access.PAUSED: "qos_paused",
}
RESTRICTED = (Access.PAUSED, Access.DOWNSCALED)
NO_JOBS = 0
"""The GrpSubmitJobs of an account that is paused by it."""
UNLIMITED = -1
"""What clears GrpSubmitJobs."""


@dataclass(frozen=True, slots=True)
class Qos:
    """A QOS list and the default among it; empty values are inherited."""

    names: tuple[str, ...] = ()
    default: str = ""


@dataclass(frozen=True, slots=True)
class Setup:
    """What is set on an account itself; ``None`` stays as it is."""

    qos: Qos | None = None
    submit_limit: int | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """What an account is to have, and which of its users are to have something of their own."""

    setup: Setup
    members: Mapping[str, Qos] = field(default_factory=dict)
    source: str = ""
    """Where the names come from, for messages."""

    def all_names(self) -> frozenset[str]:
        """Every QOS that has to exist."""
        own = () if self.setup.qos is None else (self.setup.qos,)
        every = (*own, *self.members.values())
        return frozenset(name for qos in every for name in (*qos.names, qos.default) if name)


def access_of(account: Account, cluster: Cluster, settings: SlurmSettings) -> Access | None:
    """Return how far an account may be used; ``None`` when the site has a QOS list of its own."""
    if settings.pauses_by_submit_limit and account.submit_limit == NO_JOBS:
        return Access.PAUSED
    return qos_access(cluster.qos_of(account.name), settings)


def qos_access(qos: str, settings: SlurmSettings) -> Access | None:
    """Return what an effective QOS list means; ``None`` where it means nothing."""
    known = {getattr(settings, key).lower(): access for access, key in _SETTINGS.items()}
    return known.get(qos.lower()) if qos else None


def remembered(account: Account, cluster: Cluster, settings: SlurmSettings) -> dict[str, str]:
    """Return what has to be known to undo a restriction, as texts; nothing that is not set."""
    own = (
        f"{user}={member.qos}/{member.default_qos}"
        for user, member in sorted(account.members.items())
        if member.has_own_qos
    )
    limit = account.submit_limit if settings.pauses_by_submit_limit else None
    texts = {
        "qos": cluster.qos_of(account.name),
        "default_qos": account.default_qos,
        "member_qos": ";".join(own),
        "submit_limit": "" if limit is None else str(limit),
    }
    return {key: text for key, text in texts.items() if text}


def restriction(
    access: Access, account: Account, settings: SlurmSettings, restore: Mapping[str, str]
) -> Target:
    """Return what an account has while it is paused or downscaled.

    One that goes from paused to downscaled gets back from ``restore`` how many jobs may be in its
    queue.

    Raises:
        PermanentError: the site has not said which QOS that is.
    """
    if access is Access.PAUSED and settings.pauses_by_submit_limit:
        return Target(Setup(submit_limit=NO_JOBS))
    name = _configured(access, settings)
    limit = _submit_limit(account, settings, restore)
    return Target(
        Setup(Qos((name,), name), limit), source=f"{_SETTINGS[access]} of backend_settings"
    )


def before_restriction(
    account: Account, cluster: Cluster, settings: SlurmSettings, restore: Mapping[str, str]
) -> Target:
    """Return what an account gets back.

    A list equal to the inherited one is inherited again. A default that is not in the list,
    which Slurm would refuse, is dropped.

    What restricts nothing stays: a QOS list of the site, or a limit that lets jobs in.

    Raises:
        PermanentError: nothing of use is remembered and the site has no default.
    """
    limit = _submit_limit(account, settings, restore)
    if qos_access(cluster.qos_of(account.name), settings) not in RESTRICTED:
        return Target(Setup(submit_limit=limit))
    names = qos_names(restore.get("qos", ""))
    if not names or qos_access(",".join(names), settings) in RESTRICTED:
        if settings.qos_management.enabled and account.name in cluster.qos:
            own = own_qos(account, cluster, settings)
            return Target(Setup(own, limit), source="qos_management of backend_settings")
        default = _configured(Access.NORMAL, settings)
        return Target(Setup(Qos((default,)), limit), source="qos_default of backend_settings")
    chosen = restore.get("default_qos", "").strip().lower()
    inherited = qos_names(cluster.qos_of(account.parent or ""))
    before = Qos(() if set(names) == set(inherited) else names, chosen if chosen in names else "")
    members = dict(_member_settings(restore.get("member_qos", "")))
    return Target(Setup(before, limit), members, "what was set before the restriction")


def _submit_limit(
    account: Account, settings: SlurmSettings, restore: Mapping[str, str]
) -> int | None:
    """The limit that an account gets back that is paused by it; ``None``: it is not."""
    if not settings.pauses_by_submit_limit or account.submit_limit != NO_JOBS:
        return None
    limit = restore.get("submit_limit", "").strip()
    return int(limit) if limit.isdecimal() and int(limit) != NO_JOBS else UNLIMITED


def own_qos(account: Account, cluster: Cluster, settings: SlurmSettings) -> Qos:
    """What an account has that has a QOS of its own: that one, the inherited, and more."""
    inherited = qos_names(cluster.qos_of(account.parent or ""))
    more = (name.lower() for name in settings.qos_management.additional_qos)
    return Qos(tuple(dict.fromkeys((*inherited, *more, account.name))), account.name)


def refuse_unknown(resource: str, target: Target, existing: Collection[str]) -> None:
    """Raise when a QOS does not exist.

    Raises:
        PermanentError: names it, and where it comes from.
    """
    unknown = sorted(target.all_names() - set(existing))
    if unknown:
        listed = ", ".join(repr(name) for name in unknown)
        raise PermanentError(
            f"{resource}: the QOS {listed} ({target.source}) does not exist in Slurm; an "
            f"administrator makes it with 'sacctmgr add qos {unknown[0]}', or the name is changed"
        )


def is_set_to(account: Account, setup: Setup) -> bool:
    """Whether an account has exactly this on its own association."""
    limit = UNLIMITED if account.submit_limit is None else account.submit_limit
    return setup.submit_limit in (None, limit) and (
        setup.qos is None
        or (
            set(qos_names(account.qos)) == set(setup.qos.names)
            and account.default_qos == setup.qos.default
        )
    )


def _configured(access: Access, settings: SlurmSettings) -> str:
    key = _SETTINGS[access]
    name: str = getattr(settings, key).lower()
    if not name:
        raise PermanentError(
            f"a resource cannot be {access.value}: {key} in backend_settings is empty; "
            "set it to the name of the QOS for this"
        )
    return name


def qos_names(text: str) -> tuple[str, ...]:
    """The names of a QOS list."""
    return tuple(dict.fromkeys(name for part in text.lower().split(",") if (name := part.strip())))


def _member_settings(text: str) -> Iterator[tuple[str, Qos]]:
    entries: Iterable[str] = text.split(";")
    for entry in entries:
        user, _, setting = entry.rpartition("=")
        names, _, default = setting.lower().partition("/")
        if is_user_name(user):
            yield user, Qos(qos_names(names), default.strip())
