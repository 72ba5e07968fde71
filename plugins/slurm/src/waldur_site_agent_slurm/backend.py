"""The Slurm backend: orchestrates reading, locking and applying; decides nothing itself."""

from __future__ import annotations

import pwd
from typing import TYPE_CHECKING, ClassVar, cast

from waldur_site_agent.backends import (
    Access,
    AddMembers,
    Backend,
    BackendResource,
    BackendState,
    CreateResource,
    DeleteResource,
    Outcome,
    RemoveMembers,
    Result,
    SetLimits,
    TemporaryError,
)
from waldur_site_agent_slurm import placing
from waldur_site_agent_slurm.applying import Applying, Patience
from waldur_site_agent_slurm.client import SlurmClient
from waldur_site_agent_slurm.diagnosis import diagnose
from waldur_site_agent_slurm.lock import default_lock_file, writer_lock
from waldur_site_agent_slurm.names import is_user_name
from waldur_site_agent_slurm.runner import ProcessRunner
from waldur_site_agent_slurm.settings import SlurmSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from waldur_site_agent.backends import (
        Action,
        BackendSettings,
        Check,
    )
    from waldur_site_agent.model.offerings import Component
    from waldur_site_agent.model.placement import Placement, ResourceRequest
    from waldur_site_agent_slurm.applying.batches import SlurmAction
    from waldur_site_agent_slurm.facts import Account, Cluster
    from waldur_site_agent_slurm.runner import Runner

LOCK_WAIT_SECONDS = 120.0


def system_user_exists(name: str) -> bool:
    """Whether the operating system knows a user, asked in this process."""
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


class SlurmBackend(Backend):
    """Resources are accounts, members are associations, limits are GrpTRESMins."""

    Settings: ClassVar[type[BackendSettings]] = SlurmSettings
    supports: ClassVar[frozenset[type]] = frozenset(
        {CreateResource, DeleteResource, SetLimits, AddMembers, RemoveMembers}
    )

    def __init__(
        self,
        settings: BackendSettings,
        components: Mapping[str, Component],
        *,
        runner: Runner | None = None,
        user_exists: Callable[[str], bool] | None = None,
        patience: Patience | None = None,
        lock_wait_seconds: float = LOCK_WAIT_SECONDS,
    ) -> None:
        """``runner`` and ``user_exists`` replace processes and the password database in tests.

        ``patience`` bounds the wait for cancelled jobs, ``lock_wait_seconds`` that for another
        writer of the same cluster.
        """
        super().__init__(settings, components)
        if not isinstance(settings, SlurmSettings):
            raise TypeError(f"SlurmSettings expected, got {type(settings).__name__}")
        self._slurm = settings
        chosen = runner or ProcessRunner(settings.slurm_bin_path)
        self._client = SlurmClient(chosen, settings.cluster, settings.command_timeout_seconds)
        self._user_exists = user_exists or system_user_exists
        self._patience = patience or Patience()
        self._lock_wait_seconds = lock_wait_seconds
        self._cluster_name = settings.cluster

    def diagnose(self) -> Iterable[Check]:
        """See :meth:`Backend.diagnose`."""
        return diagnose(self._client, self._slurm, self.components, self._lock_file)

    def place(self, request: ResourceRequest, slug: str) -> Placement:
        """See :meth:`Backend.place`; the tree is default_account, customer, project, allocation."""
        return placing.place(request, slug, self._slurm)

    def observe(self, ids: Iterable[str] | None = None) -> BackendState:  # noqa: ARG002 - one read has all
        """Read the whole cluster in one process; ``ids`` would not make it cheaper."""
        cluster = self._read()
        return BackendState(
            resources={
                name: self._resource(account, cluster)
                for name, account in cluster.accounts.items()
                if account.associated
            }
        )

    def not_yet_usable(self, users: Iterable[str]) -> frozenset[str]:
        """Those the operating system does not know; unusable names are another matter."""
        if not self._slurm.require_system_user:
            return frozenset()
        return frozenset(
            user for user in users if is_user_name(user) and not self._user_exists(user.lower())
        )

    def apply(self, actions: Sequence[Action]) -> Iterable[Outcome]:
        """Carry out the actions, grouped; one reading before and one after, under the lock.

        Actions whose wanted state the cluster already has start no writing command.
        """
        supported = [action for action in actions if type(action) in self.supports]
        done = iter(self._apply_supported(cast("list[SlurmAction]", supported)))
        return [
            next(done) if type(action) in self.supports else self._unsupported(action)
            for action in actions
        ]

    def commands_run(self) -> Mapping[str, int]:
        """Processes by program; sacctmgr as ``sacctmgr read`` and ``sacctmgr write``."""
        return self._client.counts()

    def _apply_supported(self, actions: Sequence[SlurmAction]) -> list[Outcome]:
        if not actions:
            return []
        try:
            with writer_lock(self._lock_file(), self._lock_wait_seconds):
                applying = Applying(self._client, self._slurm, self._user_exists, self._patience)
                return applying.run(actions)
        except TemporaryError as error:
            return [Outcome(action, Result.FAILED, error) for action in actions]

    def _read(self) -> Cluster:
        cluster = self._client.accounts()
        self._cluster_name = cluster.name
        return cluster

    def _lock_file(self) -> Path:
        """The site's own choice, or a file named after the cluster, which may take a reading."""
        if self._slurm.lock_file is not None:
            return self._slurm.lock_file
        return default_lock_file(self._cluster_name or self._read().name)

    def _resource(self, account: Account, cluster: Cluster) -> BackendResource:
        qos = cluster.qos_of(account.name)
        return BackendResource(
            id=account.name,
            parent=account.parent,
            organization=account.organization,
            members=account.users,
            limits=account.limits,
            access=self._access(qos),
            metadata={"qos": qos} if qos else {},
        )

    def _access(self, qos: str) -> Access | None:
        known = {
            self._slurm.qos_default.lower(): Access.NORMAL,
            self._slurm.qos_downscaled.lower(): Access.DOWNSCALED,
            self._slurm.qos_paused.lower(): Access.PAUSED,
        }
        return known.get(qos.lower()) if qos else None
