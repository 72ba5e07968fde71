"""What commands say when a part of Slurm is away, word for word as 22.05 does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from waldur_site_agent_slurm.simulator.request import Answer
from waldur_site_agent_slurm.simulator.state import Outage

if TYPE_CHECKING:
    from waldur_site_agent_slurm.simulator.state import SimState

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


class HungError(Exception):
    """The command would block until somebody kills it."""


def answer_during_outage(state: SimState, program: str, *, writes: bool) -> Answer | None:
    """Return what a command says because of an outage; ``None`` when it works as usual.

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
    trouble = _of_database(state.outage, writes=writes)
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


def _of_database(outage: Outage, *, writes: bool) -> Answer | None:
    if outage is Outage.SLURMDBD_HUNG:
        raise HungError
    if outage is Outage.SLURMDBD_REFUSED:
        return Answer(1, "", _REFUSED)
    if outage is Outage.MARIADB_AWAY:
        return Answer(1, "", _NO_DATABASE)
    if outage is Outage.NO_PERMISSION and writes:
        return Answer(1, "", _DENIED)
    return None
