"""What a simulated cluster consists of, and how it is kept in a file."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pydantic import TypeAdapter

from waldur_site_agent.backends.simulation import Answer, HungError
from waldur_site_agent_slurm.simulator.request import names

Version = Literal["22.05", "24.11"]
RELEASES: Mapping[Version, str] = {"22.05": "22.05.8", "24.11": "24.11.5"}
"""What each version calls itself."""
_MORE_TRES = ("gres/gpumem", "gres/gpuutil")  # 24.11 adds them by itself where there is gres/gpu


class Outage(enum.Enum):
    """Trouble that real clusters have."""

    SLURMDBD_REFUSED = "slurmdbd refused"
    SLURMDBD_HUNG = "slurmdbd hung"
    MARIADB_AWAY = "mariadb away"
    SLURMCTLD_AWAY = "slurmctld away"
    NO_PERMISSION = "no permission"


@dataclass
class SimMembership:
    """The associations of a user with an account, with what is set on all of them."""

    max_submit: int | None = None
    partitions: list[str] = field(default_factory=lambda: [""])
    """One for each association; empty for the one that is good in every partition."""
    qos: list[str] = field(default_factory=list)
    default_qos: str = ""
    limits: dict[str, int] = field(default_factory=dict)
    fairshare: str = ""
    """``parent``, or a share of its own where it is empty."""
    lost_lineage: bool = False
    """24.11: an account above its own was moved with accounts below it. slurmctld then applies no
    limit of the account to it, and it goes with the account below which it was."""

    def associations(self) -> list[str]:
        """The partitions as sacctmgr lists them: the association without one comes last."""
        return sorted(self.partitions, key=lambda partition: (not partition, partition))

    def default_association(self) -> str:
        """The one that Slurm counts as the default where this is the default account."""
        return "" if "" in self.partitions else self.partitions[0]


@dataclass
class SimAccount:
    """An account, with its association and those of its users."""

    name: str
    description: str
    organization: str
    parent: str = ""
    associated: bool = True
    qos: list[str] = field(default_factory=list)
    default_qos: str = ""
    submit_limit: int | None = None
    """GrpSubmitJobs."""
    limits: dict[str, int] = field(default_factory=dict)
    members: dict[str, SimMembership] = field(default_factory=dict)
    """Those who joined last come first."""
    coordinators: list[str] = field(default_factory=list)
    """Those of this very account; the coordinators of those above count besides."""
    fairshare: str = "1"
    """A number, or ``parent``."""
    job_limits: dict[str, int] = field(default_factory=dict)
    """MaxTRESMins."""
    counted_since: int = field(default=0, compare=False)
    """When slurmctld began to count usage against the limits: when the account was made, or when
    RawUsage was reset; epoch."""


@dataclass
class SimUser:
    """A user as the accounting database knows it."""

    name: str
    default_account: str = ""
    admin_level: str = "None"


@dataclass
class SimJob:
    """A job that is not over."""

    id: int
    account: str
    user: str
    state: str = "RUNNING"
    recorded: bool = True
    """Whether slurmdbd knows of it; a pending job that it does not know blocks no removal."""
    survives_cancel: bool = False
    """Whether scancel does not end it, as when its node does not answer."""
    hidden: bool = False
    """Whether it is in a hidden partition."""
    end: int | None = None
    """When a job ended that slurmctld still remembers; epoch."""


@dataclass
class SimRun:
    """One run of a job, as the accounting database keeps it; times are epochs."""

    number: int
    job: int
    account: str
    user: str
    """Empty where nobody knows the name any more."""
    start: int
    submit: int
    end: int | None = None
    state: str = "COMPLETED"
    tres: dict[str, int] = field(default_factory=dict)
    """What it was given; mem in MiB."""
    requested: dict[str, int] = field(default_factory=dict)
    suspensions: list[tuple[int, int | None]] = field(default_factory=list)
    uid: int = 1000


@dataclass
class SimState:
    """A whole simulated cluster."""

    cluster: str = "simulated"
    version: Version = "22.05"
    accounts: dict[str, SimAccount] = field(default_factory=dict)
    users: dict[str, SimUser] = field(default_factory=dict)
    qos: list[str] = field(default_factory=list)
    usage_factors: dict[str, float] = field(default_factory=dict)
    """Of the QOS that have another than 1."""
    qos_columns: dict[str, dict[str, str]] = field(default_factory=dict)
    """What a QOS has set, as sacctmgr prints it, by column."""
    qos_limits: dict[str, dict[str, int]] = field(default_factory=dict)
    """Its GrpTRESMins."""
    qos_job_limits: dict[str, dict[str, int]] = field(default_factory=dict)
    """Its MaxTRESMins."""
    qos_counted_since: dict[str, int] = field(default_factory=dict)
    """When RawUsage of a QOS was reset; epoch."""
    usage_resets: list[tuple[int, str]] = field(default_factory=list)
    """Each reset of RawUsage: when, and of which account or QOS."""
    tres: list[str] = field(default_factory=list)
    """What slurmdbd has ever known; slurmctld's configuration says what is stored."""
    configuration: dict[str, str] = field(default_factory=dict)
    jobs: dict[int, SimJob] = field(default_factory=dict)
    next_job: int = 1
    runs: list[SimRun] = field(default_factory=list)
    now: int | None = None
    """What the cluster believes the time to be; without it the machine's clock counts."""
    added_up_until: int | None = None
    """When slurmdbd added up usage for the last time; without it, just now."""
    late_ends: int = 0
    """How many more removals slurmdbd refuses because it has not heard of jobs that ended."""
    outage: Outage | None = None
    commands_until_outage: int = 0

    @property
    def is_24_11(self) -> bool:
        """Whether it answers as 24.11 does, and not as 22.05."""
        return self.version == "24.11"

    def use_version(self, version: Version) -> None:
        """Answer as this version from now on; TRES that a newer one added stay."""
        self.version = version
        if version == "24.11":
            self.tres += [name for name in _MORE_TRES if name not in self.tres]
        self.configuration["AccountingStorageTRES"] = ",".join(self.tres)

    def children(self, name: str) -> list[SimAccount]:
        """The associated accounts directly below one, by name."""
        below = (a for a in self.accounts.values() if a.associated and a.parent == name)
        return sorted(below, key=lambda account: account.name)

    def below(self, name: str) -> list[SimAccount]:
        """An account and everything below it."""
        account = self.accounts[name]
        return [account, *(d for child in self.children(name) for d in self.below(child.name))]

    def lineage(self, account: SimAccount) -> str:
        """The place of an account in the tree, as 24.11 keeps it."""
        path = [account.name]
        while path[-1] != "root" and path[-1] in self.accounts:
            path.append(self.accounts[path[-1]].parent or "root")
        return "/".join(["", *reversed(path[:-1]), ""]) if account.name != "root" else "/"

    def is_below(self, name: str, above: str) -> bool:
        """Whether an account is somewhere below another one."""
        return any(account.name == name for account in self.below(above)[1:])

    def accounts_of(self, user: str) -> list[SimAccount]:
        """The accounts that a user is associated with."""
        return [a for a in self.accounts.values() if a.associated and user in a.members]

    @property
    def keeps_case(self) -> bool:
        """Whether users keep their capitals."""
        parameters = self.configuration.get("Parameters", "").lower().split(",")
        return "preservecaseuser" in parameters

    def all_coordinators(self, account: SimAccount) -> list[str]:
        """The coordinators of an account and those of accounts above, whom 22.05 lists again."""
        inherited: set[str] = set()
        above = self.accounts.get(account.parent)
        while above is not None:
            inherited.update(above.coordinators)
            above = self.accounts.get(above.parent)
        own = set(account.coordinators) - inherited if self.is_24_11 else account.coordinators
        return sorted([*own, *inherited])

    def forget_user(self, name: str) -> None:
        """Drop the record of a user, with the rights."""
        self.users.pop(name, None)
        for account in self.accounts.values():
            if name in account.coordinators:
                account.coordinators.remove(name)

    def effective_qos(self, account: SimAccount) -> list[str]:
        """The QOS of an account, its own or inherited."""
        while not account.qos and account.parent in self.accounts:
            account = self.accounts[account.parent]
        return account.qos

    def inherited_qos(self, account: SimAccount) -> list[str]:
        """The QOS of the account above."""
        return self.effective_qos(self.accounts[account.parent]) if account.parent else []

    def to_json(self) -> bytes:
        """Write the state down."""
        return _ADAPTER.dump_json(self, indent=1)

    @staticmethod
    def from_json(text: bytes) -> SimState:
        """Read a state that was written down."""
        return _ADAPTER.validate_json(text)


_ADAPTER = TypeAdapter(SimState)


def user_names(state: SimState, value: str) -> list[str]:
    """Expand a list of users; the database finds them whatever their capitals."""
    known = {name.lower(): name for name in state.users}
    given = names(value, keep_case=state.keeps_case)
    return list(dict.fromkeys(known.get(name.lower(), name) for name in given))


def new_state(cluster: str, version: Version = "22.05") -> SimState:
    """Return a cluster as an administrator leaves it: root, three QOS, and nobody else."""
    root = SimAccount("root", "default root account", "root", qos=["normal"])
    root.members["root"] = SimMembership()
    tres = ["cpu", "mem", "energy", "node", "billing", "fs/disk", "vmem", "pages", "gres/gpu"]
    state = SimState(
        cluster=cluster,
        accounts={"root": root},
        users={"root": SimUser("root", "root", "Administrator")},
        qos=["normal", "limited", "paused"],
        qos_columns={"paused": {"maxsubmitpu": "0"}},
        tres=tres,
        configuration={
            "AccountingStorageEnforce": "associations,limits,qos,safe",
            "ClusterName": cluster,
            "PriorityDecayHalfLife": "00:00:00",
            "PriorityUsageResetPeriod": "MONTHLY",
            "SlurmUser": "slurm(64030)",
        },
    )
    state.use_version(version)
    return state


_ASKS_SLURMCTLD = ("squeue", "scancel", "scontrol")
_REFUSED = (
    "sacctmgr: error: slurm_persist_conn_open_without_init: failed to open persistent connection "
    "to host:127.0.0.1:6819: Connection refused\n"
    "sacctmgr: error: Sending PersistInit msg: Connection refused\n"
)
_NO_DATABASE = (
    "sacctmgr: error: slurm_persist_conn_open: Something happened with the receiving/processing "
    "of the persistent connection init message to 127.0.0.1:6819: Unable to connect to database\n"
    "sacctmgr: error: Sending PersistInit msg: Unable to connect to database\n"
)
_NO_CONTROLLER = "Unable to contact slurm controller (connect failure)\n"
_DENIED = (
    "sacctmgr: error: Your user doesn't have privilege to perform this action\n"
    " Error with request: Access/permission denied\n"
)


def _denial(state: SimState, verb: str, entity: str) -> str:
    """What sacctmgr says to somebody who may not change anything."""
    if verb == "add" and entity == "account":
        if state.is_24_11:
            return " error: Only admins/operators/coordinators can add accounts\n"
        return " Problem adding accounts: Access/permission denied\n"
    if verb == "add" and entity == "user":
        if state.is_24_11:
            return " error: Problem adding user associations: Access/permission denied\n"
        return " Problem adding users: Access/permission denied\n"
    return _DENIED


def answer_during_outage(
    state: SimState, program: str, change: tuple[str, str] | None
) -> Answer | None:
    """Return what a command says because of an outage; ``None`` when it works as usual.

    Args:
        state: of the cluster.
        program: such as ``sacctmgr``.
        change: verb and entity of a command that writes.

    Raises:
        HungError: it would not say anything.
    """
    if state.outage is None:
        return None
    if state.commands_until_outage > 0:
        state.commands_until_outage -= 1
        return None
    if program in _ASKS_SLURMCTLD:
        return _of_controller(state.outage, program)
    trouble = _of_database(state, change)
    if trouble is None:
        return None
    return trouble._replace(stderr=trouble.stderr.replace("sacctmgr:", f"{program}:"))


def _of_controller(outage: Outage, program: str) -> Answer | None:
    if outage is not Outage.SLURMCTLD_AWAY:
        return None
    prefix = {
        "squeue": "slurm_load_jobs error: ",
        "scancel": "scancel: error: Kill job error on job id 1: ",
        "scontrol": "slurm_load_ctl_conf error: ",
    }[program]
    return Answer(8 if program == "scancel" else 1, "", prefix + _NO_CONTROLLER)


def _of_database(state: SimState, change: tuple[str, str] | None) -> Answer | None:
    outage = state.outage
    if outage is Outage.SLURMDBD_HUNG:
        raise HungError
    if outage is Outage.SLURMDBD_REFUSED:
        return Answer(1, "", _REFUSED)
    if outage is Outage.MARIADB_AWAY:
        return Answer(1, "", _NO_DATABASE)
    if outage is Outage.NO_PERMISSION and change is not None:
        return Answer(1, "", _denial(state, *change))
    return None
