"""One call of ``apply``: read, carry out batch by batch, read back, judge."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
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
    SiteAgentError,
    TemporaryError,
)
from waldur_site_agent_moab.accounts import (
    DEPOSIT,
    add_members,
    create,
    delete,
    remove_members,
    set_access,
    set_limits,
)
from waldur_site_agent_moab.client import MamClient, MamUnavailableError
from waldur_site_agent_moab.facts import Account, Mam, in_cents
from waldur_site_agent_moab.settings import MoabSettings
from waldur_site_agent_moab.work import MamAction, Progress, Work, batches


def outcome_of(action: MamAction, progress: Progress, mam: Mam) -> Outcome:
    """Return what became of an action, from its failure or from what was read back."""
    skipped = tuple(progress.skipped)
    error = progress.error
    if error is None and (missing := _missing(action, progress, mam)):
        error = TemporaryError(
            f"{action.resource}: the commands succeeded, but reading back shows {missing}; it is "
            "tried again; if it stays so, somebody else is changing this account"
        )
    if error is not None:
        return Outcome(action, Result.FAILED, error, skipped)
    result = Result.DONE if progress.has_written else Result.UNCHANGED
    return Outcome(action, result, None, skipped)


def _missing(action: MamAction, progress: Progress, mam: Mam) -> str:
    account = mam.accounts.get(action.resource.lower())
    unserved = {entry.name for entry in progress.skipped}
    lacking = ""
    match action:
        case DeleteResource():
            lacking = "that the account still exists" if account else ""
        case RemoveMembers():
            served = _served(action.members, unserved)
            still = {m for m in served if account is not None and account.listed_as(m) is not None}
            lacking = _listed("still in it", still)
        case _ if account is None:
            lacking = "that there is no such account"
        case AddMembers():
            served = _served(action.members, unserved)
            lacking = _listed("not in it", {m for m in served if account.listed_as(m) is None})
        case SetAccess() if account.is_active is not (action.access is Access.NORMAL):
            lacking = f"it {'active' if account.is_active else 'inactive'}"
        case CreateResource() | SetLimits():
            lacking = _money(account, action.limits.get(DEPOSIT), mam)
    return lacking


def _money(account: Account, wanted: Decimal | None, mam: Mam) -> str:
    if wanted is None:
        return ""
    try:
        bought = mam.books_of(mam.fund_of(account.key)).bought
    except PermanentError as error:
        return str(error)
    return "" if bought == in_cents(wanted) else f"{bought:f} bought instead of {wanted:f}"


def _served(members: Collection[str], unserved: Collection[str]) -> frozenset[str]:
    return frozenset(member for member in members if member not in unserved)


def _listed(where: str, names: Collection[str]) -> str:
    most = 5
    shown = ", ".join(sorted(names)[:most]) + (", ..." if len(names) > most else "")
    return f"{shown} {where}" if names else ""


class Applying:
    """Carries out a list of actions; the caller holds the writer lock."""

    def __init__(self, client: MamClient, settings: MoabSettings) -> None:
        self._client = client
        self._settings = settings
        self._mam: Mam | None = None
        self._not_made: dict[str, SiteAgentError] = {}

    def run(self, actions: Sequence[MamAction]) -> list[Outcome]:
        """Return one outcome for each action, in their order."""
        outcomes: list[Outcome] = []
        halted: TemporaryError | None = None
        for batch in batches(actions):
            if halted is None:
                try:
                    outcomes += self._batch(batch)
                    continue
                except _HaltedError as error:
                    outcomes += error.outcomes
                    halted = error.reason
                    continue
                except TemporaryError as error:
                    halted = error
            outcomes += [Outcome(action, Result.FAILED, halted) for action in batch]
        return outcomes

    def _batch(self, batch: Sequence[MamAction]) -> list[Outcome]:
        """Carry out a batch and judge it from one reading after it.

        Raises:
            TemporaryError: nothing could be read, nothing was begun.
            _HaltedError: the accounting manager went away.
        """
        before = self._mam or self._client.read()
        work = Work(self._client, self._settings, before)
        done: list[tuple[MamAction, Progress]] = []
        try:
            for action in batch:
                work.progress = Progress()
                done.append((action, work.progress))
                self._attempt(work, action)
            has_written = any(progress.has_written for _, progress in done)
            self._mam = self._client.read() if has_written else before
        except TemporaryError as error:
            raise _HaltedError(_unconfirmed(batch, done, before, error), error) from error
        return [outcome_of(action, progress, self._mam) for action, progress in done]

    def _attempt(self, work: Work, action: MamAction) -> None:
        """Carry out one action, noting its failure.

        Raises:
            MamUnavailableError: nothing that follows has a chance.
        """
        name = action.resource.lower()
        if isinstance(action, CreateResource):
            self._not_made.pop(name, None)
        if name in self._not_made:
            work.progress.error = _because_not_made(name, self._not_made[name])
            return
        try:
            _carry_out(work, action)
        except MamUnavailableError:
            raise
        except SiteAgentError as error:
            work.progress.error = error
            if isinstance(action, CreateResource):
                self._not_made[name] = error


class _HaltedError(Exception):
    """The rest of the actions has no chance; carries the outcomes of the batch in hand."""

    def __init__(self, outcomes: list[Outcome], reason: TemporaryError) -> None:
        super().__init__(str(reason))
        self.outcomes = outcomes
        self.reason = reason


def _carry_out(work: Work, action: MamAction) -> None:
    match action:
        case CreateResource():
            create(work, action)
        case DeleteResource():
            delete(work, action)
        case SetLimits():
            set_limits(work, action)
        case AddMembers():
            add_members(work, action)
        case RemoveMembers():
            remove_members(work, action)
        case SetAccess():
            set_access(work, action)


def _unconfirmed(
    batch: Sequence[MamAction],
    done: Iterable[tuple[MamAction, Progress]],
    before: Mam,
    error: TemporaryError,
) -> list[Outcome]:
    """Outcomes when the accounting manager went away: what was written or not begun has failed."""
    outcomes = []
    for action, progress in done:
        if progress.has_written or outcome_of(action, progress, before).error is not None:
            progress.error = progress.error or error
        outcomes.append(outcome_of(action, progress, before))
    begun = len(outcomes)
    return outcomes + [Outcome(action, Result.FAILED, error) for action in batch[begun:]]


def _because_not_made(name: str, error: SiteAgentError) -> SiteAgentError:
    family = PermanentError if isinstance(error, PermanentError) else TemporaryError
    return family(f"{name}: left alone because it could not be made: {error}")
