"""Accounts of ``tallyctl``: a backend on the kit for command-line backends, in one file."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from waldur_site_agent.backends import (
    AddMembers,
    BackendResource,
    BackendSettings,
    BackendState,
    Check,
    CheckStatus,
    CreateResource,
    DeleteResource,
    Look,
    PermanentError,
    RemoveMembers,
    SetLimits,
    TemporaryError,
    make_checks,
)
from waldur_site_agent.backends.account_tree import AccountTree, Shape, refuse_kept
from waldur_site_agent.backends.command_line import (
    AnyTask,
    BackendUnavailableError,
    CommandClient,
    CommandLineBackend,
    Task,
    Work,
)
from waldur_site_agent.backends.locking import default_lock_file
from waldur_site_agent.backends.naming import PREFIX_RULE, Naming
from waldur_site_agent.backends.processes import CommandResult, ProcessRunner, Runner, described
from waldur_site_agent.model.backend import Placement, ResourceRequest
from waldur_site_agent.model.marketplace import Component
from waldur_site_agent.model.usage import Period, ResourceUsage, UsageReport

NAMING = Naming("Tally", "'root' is the account above all others")
TREE = AccountTree(NAMING, "Tally account", dropped="-", needs_description=True)
LEDGER_AWAY = 75  # EX_TEMPFAIL


class TallySettings(BackendSettings):
    """``backend_settings`` of an offering of this backend."""

    default_account: str = "root"
    customer_prefix: str = Field(default="", pattern=PREFIX_RULE)
    project_prefix: str = Field(default="", pattern=PREFIX_RULE)
    allocation_prefix: str = Field(default="", pattern=PREFIX_RULE)
    tally_path: Path | None = None
    """Directory of ``tallyctl``; without it the command is looked up in PATH."""
    command_timeout_seconds: float = Field(default=60, gt=0)
    lock_file: Path | None = None

    @property
    def shape(self) -> Shape:
        """The accounts above those of resources: a customer's and a project's."""
        kept = {"root": "default_account", self.default_account: "default_account"}
        return Shape(top=self.default_account, kept=kept)


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """One account as ``tallyctl list`` has it."""

    name: str
    parent: str | None
    organization: str = ""
    members: frozenset[str] = frozenset()
    limits: Mapping[str, Decimal] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Book:
    """Every account, from one reading."""

    accounts: Mapping[str, Account]

    def members_of(self, account: str) -> frozenset[str] | None:
        """The users of an account; ``None`` where there is no such account."""
        found = self.accounts.get(account)
        return None if found is None else found.members

    def children(self, name: str) -> list[str]:
        """The accounts directly below."""
        return sorted(a.name for a in self.accounts.values() if a.parent == name)


class TallyClient(CommandClient):
    """Runs ``tallyctl``: each question and each change is one process."""

    def failure(self, result: CommandResult) -> TemporaryError | None:
        """A ledger that is away ends the batch; other failures concern one command."""
        if result.exit_code == 0:
            return None
        family = BackendUnavailableError if result.exit_code == LEDGER_AWAY else TemporaryError
        return family(f"tallyctl failed: {described(result)}", remedy="look at: tallyctl status")

    def book(self) -> Book:
        """Read every account.

        Raises:
            TemporaryError: the answer is not whole: it has no root, or is no JSON.
        """
        printed = self.ask(("tallyctl", "list"))
        try:
            rows = json.loads(printed, parse_float=Decimal)
            accounts = {row["name"]: _account(row) for row in rows}
        except (ValueError, KeyError, TypeError) as error:
            raise TemporaryError(f"the list of accounts is not understood: {error}") from error
        if "root" not in accounts:
            raise TemporaryError("the list of accounts is not whole: it lacks root")
        return Book(accounts)

    def charges(self, period: Period) -> list[dict[str, Any]]:
        """Read what was charged in a period."""
        start, end = (moment.isoformat() for moment in (period.start, period.end))
        charges: list[dict[str, Any]] = json.loads(
            self.ask(("tallyctl", "charges", f"--from={start}", f"--to={end}"))
        )
        return charges


def _account(row: Mapping[str, Any]) -> Account:
    return Account(
        name=row["name"],
        parent=row["parent"],
        organization=row["organization"],
        members=frozenset(row["members"]),
        limits={name: Decimal(amount) for name, amount in row["limits"].items()},
    )


@dataclass(slots=True, kw_only=True)
class TallyWork(Work[Book]):
    """What a batch works with."""

    client: TallyClient
    kept: Mapping[str, str]
    """The site's own accounts, each with the key that names it."""

    def write(self, task: AnyTask, *words: str) -> None:
        """Run a command that changes something for a task."""
        self.ledger.writes(task)
        self.client.write(("tallyctl", *words))

    def note(self, account: Account) -> None:
        """Remember an account as a command should have left it."""
        self.now = Book({**self.now.accounts, account.name: account})

    def remove(self, task: AnyTask, name: str) -> None:
        """Remove an account."""
        self.write(task, "remove-account", name)
        self.now = Book({key: a for key, a in self.now.accounts.items() if key != name})

    def account(self, task: AnyTask) -> Account:
        """The account that a task is about."""
        name = NAMING.account(task.action.resource, "account")
        if name not in self.now.accounts:
            raise PermanentError(f'{name}: there is no Tally account "{name}"; was it removed?')
        return self.now.accounts[name]


def create_accounts(work: TallyWork, tasks: Iterable[Task[CreateResource]]) -> None:
    """Make what is missing of each placement, outermost first."""
    for task in tasks:
        with work.ledger.attempt(task):
            placement = task.action.placement
            limits = checked(placement.id, task.action.limits)
            for name, parent, organization, title in missing(placement, work.now):
                options = [f"--parent={parent}", f"--organization={organization}"]
                work.write(task, "add-account", name, *options, f"--title={title}")
                work.note(Account(name=name, parent=parent, organization=organization))
            change_limits(work, task, work.now.accounts[placement.id], limits)


def missing(placement: Placement, book: Book) -> Iterator[tuple[str, str, str, str]]:
    """What is to be made; an account that has a name already must be one of ours."""
    TREE.check_names(placement)
    lacking = []
    for each in placement.containers:
        if found := book.accounts.get(each.id):
            TREE.refuse_foreign_container(placement, each, found.organization)
        else:
            lacking.append((each.id, each.parent, each.organization, each.title))
    if found := book.accounts.get(placement.id):
        TREE.refuse_foreign(placement, found.name, found.organization)
    else:
        own = (placement.id, placement.parent, placement.organization, placement.title)
        lacking.append(own)
    yield from lacking


def checked(name: str, limits: Mapping[str, Decimal | None]) -> dict[str, Decimal | None]:
    """The limits, if the ledger can keep them."""
    for component, amount in limits.items():
        if amount is not None and not (amount.is_finite() and amount >= 0):
            raise PermanentError(
                f"{name}: {component}={amount} is impossible: a limit is zero or more; correct it "
                "in Waldur and order again"
            )
    return dict(limits)


def set_limits(work: TallyWork, tasks: Iterable[Task[SetLimits]]) -> None:
    """Set or clear the limits that are named."""
    for task in tasks:
        with work.ledger.attempt(task):
            account = work.account(task)
            change_limits(work, task, account, checked(account.name, task.action.limits))


def change_limits(
    work: TallyWork, task: AnyTask, account: Account, limits: Mapping[str, Decimal | None]
) -> None:
    """One command for all limits of an account that differ."""
    words = [
        f"{name}={'none' if amount is None else f'{amount:f}'}"
        for name, amount in limits.items()
        if account.limits.get(name) != amount
    ]
    if words:
        work.write(task, "limit", account.name, *words)


def add_members(work: TallyWork, tasks: Iterable[Task[AddMembers]]) -> None:
    """One command for everybody who joins an account; unusable names are left out."""
    for task in tasks:
        with work.ledger.attempt(task):
            account, fit = work.account(task), []
            for member in task.action.members:
                try:
                    fit.append(NAMING.user(member))
                except PermanentError as error:
                    work.ledger.leave_out(task, member, error)
            if joining := sorted(set(fit) - account.members):
                work.write(task, "add-members", account.name, *joining)
                work.note(replace(account, members=account.members.union(joining)))


def remove_members(work: TallyWork, tasks: Iterable[Task[RemoveMembers]]) -> None:
    """One command for everybody who leaves an account; nobody is in one that is gone."""
    for task in tasks:
        with work.ledger.attempt(task):
            name = NAMING.account(task.action.resource, "account")
            present = work.now.members_of(name) or frozenset()
            listed = {work.listed_as(member, present) for member in task.action.members} - {None}
            if leaving := sorted(NAMING.listed_user(user) for user in listed if user):
                work.write(task, "remove-members", name, *leaving)


def delete_accounts(work: TallyWork, tasks: Iterable[Task[DeleteResource]]) -> None:
    """Delete accounts, and the project's where nothing is left below it."""
    for task in tasks:
        with work.ledger.attempt(task):
            name = NAMING.account(task.action.resource, "account")
            if name in work.now.accounts:
                refuse_kept(name, work.kept)
                if children := work.now.children(name):
                    raise PermanentError(f"{name}: not deleted: {', '.join(children)} are below it")
                work.remove(task, name)
            above = work.now.accounts.get(task.action.project_container or "")
            if above and above.organization == above.name and not work.now.children(above.name):
                work.remove(task, above.name)


class TallyBackend(CommandLineBackend[Book, TallyWork]):
    """Resources, projects and customers are accounts of ``tallyctl``."""

    Settings: ClassVar[type[BackendSettings]] = TallySettings
    supports: frozenset[type] = frozenset(
        {CreateResource, DeleteResource, SetLimits, AddMembers, RemoveMembers}
    )
    phases: ClassVar[Mapping[type, Callable[..., None]]] = {
        CreateResource: create_accounts,
        SetLimits: set_limits,
        AddMembers: add_members,
        RemoveMembers: remove_members,
        DeleteResource: delete_accounts,
    }
    lock_purpose = "the ledger takes one writer at a time: look at that process, or its tallyctl"
    settings: TallySettings

    def __init__(
        self,
        settings: TallySettings,
        components: Mapping[str, Component],
        *,
        runner: Runner | None = None,
    ) -> None:
        super().__init__(settings, components)
        chosen = runner or ProcessRunner(settings.tally_path, when_missing="set tally_path")
        self._client = TallyClient(chosen, settings.command_timeout_seconds)

    def client(self) -> TallyClient:
        """What runs the commands."""
        return self._client

    def lock_file(self) -> Path:
        """Where the writers of the ledger queue up."""
        return self.settings.lock_file or default_lock_file("waldur-site-agent-tally.lock")

    def place(self, request: ResourceRequest, slug: str) -> Placement:
        """The tree is default_account, customer, project, allocation."""
        return TREE.place(request, slug, self.settings)

    def diagnose(self) -> Iterable[Check]:
        """Whether the accounts can be read."""
        return make_checks([Look("accounts", self._check_accounts)])

    def _check_accounts(self) -> Iterable[Check]:
        detail = f"{len(self.read().accounts)} accounts"
        yield Check(name="accounts", verdict=CheckStatus.OK, detail=detail)

    def read(self) -> Book:
        """One process reads everything."""
        return self._client.book()

    def state_of(self, reading: Book) -> BackendState:
        """Every account, in the terms of the contract."""
        return BackendState(
            resources={
                name: BackendResource(
                    id=name,
                    parent=account.parent,
                    organization=account.organization,
                    members=account.members,
                    limits=account.limits,
                )
                for name, account in reading.accounts.items()
            }
        )

    def begin(self, reading: Book, lock: int) -> TallyWork:
        """What a batch works with."""
        client = self._client.holding(lock)
        return TallyWork(now=reading, client=client, kept=self.settings.shape.kept)

    def difference(self, task: AnyTask, work: TallyWork, reading: Book) -> str:
        """Compare limits; who is a member has been compared already."""
        match task.action:
            case CreateResource(limits=limits) | SetLimits(limits=limits):
                found = reading.accounts[task.account].limits
                wrong = [name for name, amount in limits.items() if found.get(name) != amount]
                return f"other limits for {', '.join(wrong)}" if wrong else ""
            case _:
                return ""

    def usages(
        self, since: Mapping[str, datetime], periods: Sequence[Period]
    ) -> tuple[UsageReport, ...]:
        """Add up the charges of each period, exactly."""
        return tuple(self._report(since, period) for period in periods)

    def _report(self, since: Mapping[str, datetime], period: Period) -> UsageReport:
        used: dict[str, dict[str, dict[str, Fraction]]] = {name: {} for name in since}
        for charge in self._client.charges(period):
            account, at = charge["account"], datetime.fromisoformat(charge["at"])
            if account in since and max(since[account], period.start) <= at < period.end:
                amounts = used[account].setdefault(charge["user"], {})
                component = charge["component"]
                amounts[component] = amounts.get(component, Fraction(0)) + Fraction(
                    charge["amount"]
                )
        resources = {name: ResourceUsage(by_user=by_user) for name, by_user in used.items()}
        return UsageReport(period=period, resources=resources)
