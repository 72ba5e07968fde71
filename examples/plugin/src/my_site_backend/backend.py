"""Accounts in a JSON file: a small backend that keeps the whole contract."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar

from waldur_site_agent.backends import (
    Action,
    AddMembers,
    Backend,
    BackendResource,
    BackendSettings,
    BackendState,
    Check,
    CheckStatus,
    CreateResource,
    DeleteResource,
    Outcome,
    PermanentError,
    RemoveMembers,
    Result,
    SetLimits,
    Skipped,
    TemporaryError,
)
from waldur_site_agent.model.backend import Container, Placement, ResourceRequest
from waldur_site_agent.model.usage import Period, ResourceUsage, UsageReport

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,30}")

Account = dict[str, Any]
Accounts = dict[str, Account]


class JsonFileSettings(BackendSettings):
    """``backend_settings`` of an offering of this backend."""

    file: Path
    prefix: str = "waldur-"


class JsonFileBackend(Backend):
    """A resource is an entry of a JSON file, below an entry of its project."""

    Settings: ClassVar[type[BackendSettings]] = JsonFileSettings
    supports: ClassVar[frozenset[type]] = frozenset(
        {CreateResource, DeleteResource, SetLimits, AddMembers, RemoveMembers}
    )
    settings: JsonFileSettings

    def diagnose(self) -> Iterator[Check]:
        """Say whether the file can be read."""
        try:
            detail = f"{self.settings.file} has {len(self._read())} accounts"
        except TemporaryError as error:
            yield Check(name="file", verdict=CheckStatus.FAILED, detail=str(error))
        else:
            yield Check(name="file", verdict=CheckStatus.OK, detail=detail)

    def place(self, request: ResourceRequest, slug: str) -> Placement:
        """Put a resource below the account of its project."""
        prefix = self.settings.prefix
        for text in (slug, request.project_slug):
            checked(text)  # before a prefix makes an awkward slug look harmless
        project = Container(
            kind="project",
            id=checked(f"{prefix}project-{request.project_slug}"),
            parent="root",
            title=request.project_name,
            organization=f"{prefix}project-{request.project_slug}",
        )
        return Placement(
            id=checked(f"{prefix}{slug}"),
            title=request.resource_name,
            parent=project.id,
            organization=project.id,
            containers=(project,),
        )

    def observe(self, ids: Iterable[str] | None = None) -> BackendState:
        """Read the whole file; ``ids`` would not make that cheaper."""
        found = {
            name: BackendResource(
                id=name,
                parent=account["parent"],
                organization=account["organization"],
                members=frozenset(account["members"]),
                limits={key: Decimal(value) for key, value in account["limits"].items()},
            )
            for name, account in self._read().items()
        }
        return BackendState(resources={"root": BackendResource(id="root"), **found})

    def create_resource(self, action: CreateResource) -> Outcome:
        """Make the account, and the one above it where that is missing."""
        place = action.placement

        def edit(accounts: Accounts) -> None:
            for container in place.containers:
                ensure(accounts, container.id, container.parent, container.organization)
            account = ensure(accounts, place.id, place.parent, place.organization)
            set_amounts(account, action.limits)

        return self._change(action, edit)

    def delete_resource(self, action: DeleteResource) -> Outcome:
        """Delete the account, and then the project's when nothing is left below it."""
        name, above = checked(action.resource), action.project_container

        def edit(accounts: Accounts) -> None:
            if has_children(accounts, name):
                raise PermanentError(f'{name}: cannot delete: "{name}" has accounts below it')
            if name in accounts:
                owned(accounts, name)
                del accounts[name]
            if above in accounts and is_ours(accounts, above) and not has_children(accounts, above):
                del accounts[above]

        return self._change(action, edit)

    def set_limits(self, action: SetLimits) -> Outcome:
        """Set or clear the limits that are named, and no others."""
        return self._change(
            action, lambda accounts: set_amounts(owned(accounts, action.resource), action.limits)
        )

    def add_members(self, action: AddMembers) -> Outcome:
        """Add those who have a usable name."""
        fit = {member for member in action.members if is_name(member)}
        unfit = tuple(
            Skipped(member, PermanentError(f"{member!r} is no usable username"))
            for member in action.members
            if member not in fit
        )

        def edit(accounts: Accounts) -> None:
            account = owned(accounts, action.resource)
            account["members"] = sorted(fit.union(account["members"]))

        return self._change(action, edit, unfit)

    def remove_members(self, action: RemoveMembers) -> Outcome:
        """Remove them; nobody is in an account that is gone."""
        name = checked(action.resource)

        def edit(accounts: Accounts) -> None:
            if name in accounts:
                account = owned(accounts, name)
                account["members"] = sorted(set(account["members"]).difference(action.members))

        return self._change(action, edit)

    def usage(self, since: Mapping[str, datetime], period: Period) -> UsageReport:
        """Sum up the account's ``usage``: entries with ``at``, ``user``, ``component``, ``amount``.

        ``at`` is a moment in ISO 8601 with its zone; an entry counts when it lies in the period
        and not before the resource's own beginning.
        """
        accounts = self._read()
        return UsageReport(
            period=period,
            resources={
                name: ResourceUsage(by_user=used(accounts.get(name, {}), beginning, period))
                for name, beginning in since.items()
            },
        )

    def _read(self) -> Accounts:
        try:
            accounts: Accounts = json.loads(self.settings.file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise TemporaryError(f"the accounts cannot be read: {error}") from error
        return accounts

    def _change(
        self, action: Action, edit: Callable[[Accounts], None], skipped: tuple[Skipped, ...] = ()
    ) -> Outcome:
        """Read, edit, write; an edit that raises leaves the file as it was."""
        accounts = self._read()
        before = json.dumps(accounts)
        edit(accounts)
        if json.dumps(accounts) == before:
            return Outcome(action, Result.UNCHANGED, skipped=skipped)
        draft = self.settings.file.with_suffix(".new")
        try:
            draft.write_text(json.dumps(accounts, indent=2), encoding="utf-8")
            draft.replace(self.settings.file)  # readers see the old file or the new one, whole
        except OSError as error:
            raise TemporaryError(f"the accounts cannot be written: {error}") from error
        return Outcome(action, Result.DONE, skipped=skipped)


def is_name(text: str) -> bool:
    """Whether a name is fit for use; "root" stands above all accounts and is nobody's."""
    return NAME.fullmatch(text) is not None and text != "root"


def checked(name: str) -> str:
    """The name itself, if it is fit for use."""
    if not is_name(name):
        raise PermanentError(f"{name!r} cannot be used; a name is 1 to 31 of a-z 0-9 . _ -")
    return name


def is_ours(accounts: Accounts, name: str) -> bool:
    """Whether an account stands as `place` would put it; an administrator's does not."""
    account = accounts[name]
    return account["organization"] in (name, account["parent"])


def owned(accounts: Accounts, name: str) -> Account:
    """The account, if it exists and is ours."""
    if checked(name) not in accounts:
        raise PermanentError(f'{name}: there is no account "{name}"; was it deleted by hand?')
    if not is_ours(accounts, name):
        raise PermanentError(f'{name}: account "{name}" is not ours; set another prefix')
    return accounts[name]


def ensure(accounts: Accounts, name: str, parent: str, organization: str) -> Account:
    """The account, made if it is missing, refused if it is somebody else's."""
    blank = {"parent": parent, "organization": organization, "members": [], "limits": {}}
    account = accounts.setdefault(name, blank)
    if (account["parent"], account["organization"]) != (parent, organization):
        raise PermanentError(
            f'{name}: cannot create: account "{name}" exists under "{account["parent"]}" '
            f'with organization "{account["organization"]}"; set another prefix'
        )
    return account


def has_children(accounts: Accounts, name: str) -> bool:
    """Whether accounts stand below this one."""
    return any(account["parent"] == name for account in accounts.values())


def set_amounts(account: Account, limits: Mapping[str, Decimal | None]) -> None:
    """Set the limits that are named; ``None`` clears one. Text keeps a Decimal exact."""
    for component, amount in limits.items():
        if amount is None:
            account["limits"].pop(component, None)
        elif not amount.is_finite() or amount < 0:
            raise PermanentError(f"{component}={amount}: a limit is zero or more")
        else:
            account["limits"][component] = f"{amount:f}"


def used(account: Account, since: datetime, period: Period) -> dict[str, dict[str, Fraction]]:
    """What each user used of an account, in backend units, exactly."""
    by_user: dict[str, dict[str, Fraction]] = {}
    for entry in account.get("usage", ()):
        if max(since, period.start) <= datetime.fromisoformat(entry["at"]) < period.end:
            amounts = by_user.setdefault(entry["user"], {})
            before = amounts.get(entry["component"], Fraction(0))
            amounts[entry["component"]] = before + Fraction(str(entry["amount"]))
    return by_user
