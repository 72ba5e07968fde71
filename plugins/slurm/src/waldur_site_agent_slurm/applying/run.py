"""One call of ``apply``: read, carry out batch by batch, read back, judge."""

from __future__ import annotations

from typing import TYPE_CHECKING

from waldur_site_agent.backends import (
    CreateResource,
    Outcome,
    PermanentError,
    Result,
    TemporaryError,
)
from waldur_site_agent_slurm.applying.batches import batches
from waldur_site_agent_slurm.applying.creating import create_accounts
from waldur_site_agent_slurm.applying.deleting import delete_accounts
from waldur_site_agent_slurm.applying.joining import add_members
from waldur_site_agent_slurm.applying.judging import outcome_of
from waldur_site_agent_slurm.applying.leaving import remove_members
from waldur_site_agent_slurm.applying.limiting import set_limits
from waldur_site_agent_slurm.applying.member_limiting import set_member_limits
from waldur_site_agent_slurm.applying.switching import set_access
from waldur_site_agent_slurm.applying.work import Work

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from waldur_site_agent.backends import (
        SiteAgentError,
    )
    from waldur_site_agent_slurm.applying.batches import SlurmAction, Task
    from waldur_site_agent_slurm.applying.work import Patience
    from waldur_site_agent_slurm.client import SlurmClient
    from waldur_site_agent_slurm.facts import Cluster
    from waldur_site_agent_slurm.settings import SlurmSettings

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
        patience: Patience,
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
