"""One call of ``apply``: read, carry out batch by batch, read back, judge."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from decimal import Decimal

from waldur_site_agent.backends import (
    Access,
    AddMembers,
    CreateResource,
    DeleteResource,
    Outcome,
    PermanentError,
    RemoveMembers,
    Result,
    SetAccess,
    SetLimits,
    SetMemberLimits,
    SiteAgentError,
    TemporaryError,
)
from waldur_site_agent_slurm import tres
from waldur_site_agent_slurm.accounts import create_accounts, delete_accounts
from waldur_site_agent_slurm.client import SlurmClient
from waldur_site_agent_slurm.facts import Cluster, Member
from waldur_site_agent_slurm.limits import set_access, set_limits, set_member_limits
from waldur_site_agent_slurm.members import add_members, remove_members
from waldur_site_agent_slurm.qos import RESTRICTED, access_of, is_set_to, restriction
from waldur_site_agent_slurm.settings import SlurmSettings
from waldur_site_agent_slurm.work import PollTimeout, SlurmAction, Task, Work, batches


def outcome_of(task: Task, work: Work, cluster: Cluster) -> Outcome:
    """Return what became of a task, from its failure or from the cluster as it was read back."""
    ledger = work.ledger
    skipped = tuple(ledger.skipped.get(task.index, ()))
    error = ledger.errors.get(task.index)
    if error is None:
        unserved = {entry.name for entry in skipped}
        missing = _missing(task.action, unserved, cluster, work)
        if isinstance(task.action, SetAccess) and not missing:
            was_written = task.index in ledger.written
            missing = _access(task.action, cluster, work.settings, was_written=was_written)
        if missing:
            error = TemporaryError(
                f"{task.account}: Slurm's commands succeeded, but reading back shows {missing}; "
                "it is tried again; if it stays so, somebody else is changing this account"
            )
    if error is not None:
        return Outcome(task.action, Result.FAILED, error, skipped)
    result = Result.DONE if task.index in ledger.written else Result.UNCHANGED
    return Outcome(task.action, result, None, skipped)


def _missing(action: SlurmAction, unserved: Collection[str], cluster: Cluster, work: Work) -> str:
    account = cluster.find(action.resource.lower())
    lacking = ""
    match action:
        case DeleteResource():
            lacking = "that the account still exists" if account else ""
        case RemoveMembers():
            present = account.users if account else frozenset()
            still = {m for m in _served(action.members, unserved) if work.listed_as(m, present)}
            lacking = _list_members("still in it", still)
        case _ if account is None:
            lacking = "that there is no such account"
        case AddMembers():
            served = _served(action.members, unserved)
            lacking = _list_members(
                "not in it", {m for m in served if work.listed_as(m, account.users) is None}
            )
        case CreateResource() if account.parent != action.placement.parent:
            lacking = f"it under {account.parent!r}"
        case CreateResource() | SetLimits():
            lacking = _limits(action.limits, account.limits)
        case SetMemberLimits():
            member = work.listed_as(action.member, account.users) or action.member
            found = account.members.get(member, Member()).limits
            lacking = _limits(action.limits, found)
    return lacking


def _limits(wanted: Mapping[str, Decimal | None], found: Mapping[str, Decimal]) -> str:
    wrong = [
        name
        for name, amount in wanted.items()
        if not tres.is_set_to(name, found, None if amount is None else int(amount))
    ]
    shown = ", ".join(f"{n}={found.get(n, 'nothing')}" for n in sorted(wrong))
    return f"other limits ({shown})" if wrong else ""


def _access(
    action: SetAccess, cluster: Cluster, settings: SlurmSettings, *, was_written: bool
) -> str:
    account = cluster.accounts[action.resource.lower()]
    effective = cluster.qos_of(account.name)
    shown = f"QOS {effective or 'none'}, DefaultQOS {account.default_qos or 'none'}"
    if action.access is Access.NORMAL:
        is_restricted = access_of(effective, settings) in RESTRICTED
        return f"it still restricted ({shown})" if is_restricted else ""
    if not was_written or is_set_to(account, restriction(action.access, settings).qos):
        return ""
    return shown


def _served(members: Collection[str], unserved: Collection[str]) -> frozenset[str]:
    return frozenset(member for member in members if member not in unserved)


def _list_members(where: str, names: Collection[str]) -> str:
    most = 5
    shown = ", ".join(sorted(names)[:most]) + (", ..." if len(names) > most else "")
    return f"{shown} {where}" if names else ""


_PHASES = (
    create_accounts,
    set_limits,
    add_members,
    remove_members,
    set_member_limits,
    set_access,
    delete_accounts,
)


class Applying:
    """Carries out a list of actions; the caller holds the writer lock."""

    def __init__(
        self,
        client: SlurmClient,
        settings: SlurmSettings,
        user_exists: Callable[[str], bool],
        patience: PollTimeout,
        system_name: Callable[[str], str],
    ) -> None:
        self._client = client
        self._settings = settings
        self._user_exists = user_exists
        self._patience = patience
        self._system_name = system_name
        self._not_made: dict[str, SiteAgentError] = {}

    def run(self, actions: Sequence[SlurmAction]) -> list[Outcome]:
        """Return one outcome for each action, in their order."""
        outcomes: list[Outcome] = []
        cluster: Cluster | None = None
        halted: TemporaryError | None = None
        for batch in batches(actions):
            if halted is None:
                try:
                    cluster = self._client.accounts() if cluster is None else cluster
                    done, cluster = self._batch(batch, cluster)
                    outcomes += done
                    continue
                except _HaltedError as error:
                    outcomes += error.outcomes
                    halted = error.cause
                    continue
                except TemporaryError as error:
                    halted = error
            outcomes += failed(batch, halted)
        return outcomes

    def _batch(self, batch: Sequence[Task], cluster: Cluster) -> tuple[list[Outcome], Cluster]:
        work = Work(
            client=self._client,
            settings=self._settings,
            cluster=cluster,
            user_exists=self._user_exists,
            patience=self._patience,
            system_name=self._system_name,
        )
        for task in batch:
            if isinstance(task.action, CreateResource):
                self._not_made.pop(task.account, None)
        self._refuse_for_failed_creations(work, batch)
        try:
            for phase in _PHASES:
                phase(work, self._unblocked(work, batch))
            if work.ledger.written:
                cluster = self._client.accounts()
        except TemporaryError as error:
            raise _HaltedError(self._unfinished(work, batch, cluster, error), error) from error
        return [outcome_of(task, work, cluster) for task in batch], cluster

    def _unblocked(self, work: Work, batch: Sequence[Task]) -> list[Task]:
        """Those tasks whose account was not refused or missed: it may be somebody else's."""
        for task in batch:
            if isinstance(task.action, CreateResource) and task.index in work.ledger.errors:
                self._not_made.setdefault(task.account, work.ledger.errors[task.index])
        self._refuse_for_failed_creations(work, batch)
        return work.ledger.alive(batch)

    def _refuse_for_failed_creations(self, work: Work, batch: Sequence[Task]) -> None:
        for task in batch:
            error = self._not_made.get(task.account)
            if error is not None:
                work.ledger.errors.setdefault(task.index, _because_not_made(task, error))

    @staticmethod
    def _unfinished(
        work: Work, batch: Sequence[Task], before: Cluster, error: TemporaryError
    ) -> list[Outcome]:
        """Outcomes when Slurm went away: what was not confirmed by a reading has failed."""
        outcomes = []
        for task in batch:
            if task.index not in work.ledger.errors:
                judged = outcome_of(task, work, before)
                if judged.result is Result.UNCHANGED:
                    outcomes.append(judged)
                    continue
                work.ledger.errors[task.index] = error
            outcomes.append(outcome_of(task, work, before))
        return outcomes


class _HaltedError(Exception):
    """The rest of the actions has no chance; carries the outcomes of the batch in hand."""

    def __init__(self, outcomes: list[Outcome], cause: TemporaryError) -> None:
        super().__init__(str(cause))
        self.outcomes = outcomes
        self.cause = cause


def failed(tasks: Iterable[Task], error: SiteAgentError) -> list[Outcome]:
    """Return a failed outcome for each task."""
    return [Outcome(task.action, Result.FAILED, error) for task in tasks]


def _because_not_made(task: Task, error: SiteAgentError) -> SiteAgentError:
    family = PermanentError if isinstance(error, PermanentError) else TemporaryError
    return family(f"{task.account}: left alone because it could not be made: {error}")
