"""Names from outside become names that sacctmgr cannot misread, or are refused.

sacctmgr accepts nearly everything and reads part of it as syntax: ``a,b`` and ``x[1-3]`` are
lists, quotes are stripped or replaced, letters are lower-cased, names are cut at 255 bytes
without a word. So nothing but an allow-list protects a site.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from waldur_site_agent.backends import PermanentError
from waldur_site_agent.backends.account_tree import AccountTree
from waldur_site_agent.backends.naming import Naming
from waldur_site_agent_slurm.facts import Cluster

_NAMING = Naming("Slurm", "in Slurm 'root' is the whole cluster", values_are_joined=True)
TREE = AccountTree(_NAMING, "Slurm account")
"""How accounts are placed and told from those of others."""


account_name, user_name = _NAMING.account, _NAMING.user
listed_user_name, is_user_name = _NAMING.listed_user, _NAMING.is_user


def is_account_name(name: str) -> bool:
    """Whether an account can be asked for by its name: no command takes it for another one."""
    try:
        return account_name(name, "account") == name
    except PermanentError:
        return False


def is_removable(name: str) -> bool:
    """Whether no command misreads the name of a user who is to be removed."""
    try:
        listed_user_name(name)
    except PermanentError:
        return False
    return True


def has_capitals(name: str) -> bool:
    """Whether a cluster that does not keep capitals would store another name."""
    return name != name.lower()


def listed_as(
    name: str,
    users: Collection[str],
    keeps_case: Callable[[], bool],
    are_two_people: Callable[[str, str], bool],
) -> str | None:
    """Return how a user is listed among ``users``, or ``None`` for one who is not.

    Where capitals are not kept, ``Ada`` may be listed as ``ada``: earlier agents wrote it so. Not
    where ``are_two_people``, of the operating system, says that ``ada`` is somebody else. The two
    functions are called only where that matters.
    """
    if name in users:
        return name
    alike = _spelled_otherwise(name, users)
    if not alike or keeps_case() or are_two_people(name, alike[0]):
        return None
    return alike[0]


def are_two_people(
    name: str, other: str, exists: Callable[[str], bool], system_name: Callable[[str], str]
) -> bool:
    """Whether the operating system has a user of each of two names that differ in case only."""
    return exists(name) and exists(other) and system_name(name) != system_name(other)


def name_to_add(
    name: str,
    cluster: Cluster,
    keeps_case: Callable[[], bool],
    system_name: Callable[[str], str],
) -> str:
    """Return the name under which a user gets an association that nobody else can use.

    ``system_name`` gives a user's name as the operating system has it: a directory that ignores
    case knows ``Ada`` as ``ada``.

    Raises:
        PermanentError: the name cannot be given to Slurm, or would be somebody else's.
    """
    checked = user_name(name)
    known = cluster.users
    if checked in known:
        return checked
    if has_capitals(checked) and not keeps_case():
        if has_capitals(system_name(checked)):
            raise PermanentError(
                f"{checked} cannot be served: this cluster stores usernames in lower case, so "
                f"Slurm would refuse this user's jobs, and {checked.lower()} may be somebody else",
                remedy="set Parameters=PreserveCaseUser in slurmdbd.conf and restart slurmdbd, or "
                "give the person a username in lower case",
            )
        return checked.lower()
    others = _spelled_otherwise(checked, known)
    if others:
        raise PermanentError(
            f"{checked} cannot be served: Slurm has the user {others[0]}, and its database does "
            "not tell names apart that differ in case only",
            remedy=f"give one of the two another username, or remove {others[0]} from Slurm if it "
            "is nobody's",
        )
    return checked


def _spelled_otherwise(name: str, users: Iterable[str]) -> list[str]:
    lowered = name.lower()
    return sorted(user for user in users if user != name and user.lower() == lowered)
