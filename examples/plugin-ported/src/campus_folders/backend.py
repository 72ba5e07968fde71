"""The same plugin for version 2."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from typing import Any, ClassVar

import httpx
from pydantic import Field

from campus_folders.server import FileServer
from waldur_site_agent.backends import (
    Access,
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
    SetAccess,
    SetLimits,
    SiteAgentError,
    Skipped,
    TemporaryError,
)
from waldur_site_agent.model.backend import Container, Placement, ResourceRequest
from waldur_site_agent.model.marketplace import Component

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,60}")
REFUSED = (400, 409, 413, 422)


class FolderSettings(BackendSettings):
    """``backend_settings`` of an offering of this backend."""

    url: str
    project_prefix: str = Field(default="waldur-", min_length=1)
    """What the folders of projects start with that the agent makes; others are left alone."""


class FolderBackend(Backend):
    """A resource is a folder in the folder of its project."""

    Settings: ClassVar[type[BackendSettings]] = FolderSettings
    supports: ClassVar[frozenset[type]] = frozenset(
        {CreateResource, DeleteResource, SetLimits, AddMembers, RemoveMembers, SetAccess}
    )
    transport: ClassVar[httpx.BaseTransport | None] = None

    def __init__(self, settings: FolderSettings, components: Mapping[str, Component]) -> None:
        super().__init__(settings, components)
        self.server = FileServer(settings.url, self.transport)
        self.ours = settings.project_prefix

    def diagnose(self) -> Iterator[Check]:
        try:
            found = f"{len(self.read())} folders"
        except SiteAgentError as error:
            yield Check(name="file server", verdict=CheckStatus.FAILED, detail=error.problem)
        else:
            yield Check(name="file server", verdict=CheckStatus.OK, detail=found)

    def place(self, request: ResourceRequest, slug: str) -> Placement:
        project = named(self.ours + request.project_slug)
        container = Container(
            kind="project",
            id=project,
            parent="root",
            title=request.project_name,
            organization=project,
        )
        return Placement(
            id=named(slug),
            title=request.resource_name,
            parent=project,
            organization=project,
            containers=(container,),
        )

    def observe(self, ids: Iterable[str] | None = None) -> BackendState:
        found = {
            name: BackendResource(
                id=name,
                parent=folder["project"] or "root",
                organization=folder["project"] or name,
                members=frozenset(folder["users"]),
                limits={key: Decimal(value) for key, value in folder["limits"].items()},
                access=Access.PAUSED if folder["paused"] else Access.NORMAL,
            )
            for name, folder in self.read().items()
        }
        return BackendState(resources={"root": BackendResource(id="root"), **found})

    def create_resource(self, action: CreateResource) -> Outcome:
        placement = action.placement
        folders = self.read()
        found = folders.get(placement.id)
        if found is not None and found["project"] != placement.organization:
            raise PermanentError(
                f'{placement.id}: exists already, for project "{found["project"]}"; order it under '
                "another name"
            )
        limits = amounts(placement.id, self.components, action.limits)
        if found is not None and limits.items() <= found["limits"].items():
            return Outcome(action, Result.UNCHANGED)
        with sorting(placement.id):
            if placement.parent not in folders:
                self.server.put(placement.parent, title=placement.containers[0].title, project="")
            fields = {"title": placement.title, "project": placement.organization}
            self.server.put(placement.id, **fields, limits=limits)
        return Outcome(action, Result.DONE)

    def set_limits(self, action: SetLimits) -> Outcome:
        found = self.folder(action.resource)
        limits = {**found["limits"], **amounts(action.resource, self.components, action.limits)}
        limits = {name: value for name, value in limits.items() if value is not None}
        return self._put(action, found, limits=limits)

    def set_access(self, action: SetAccess) -> Outcome:
        if action.access is Access.DOWNSCALED:
            raise PermanentError(f"{action.resource}: folders can be paused, but not downscaled")
        found = self.folder(action.resource)
        return self._put(action, found, paused=action.access is Access.PAUSED)

    def _put(
        self, action: SetLimits | SetAccess, found: Mapping[str, Any], **field: Any
    ) -> Outcome:
        if all(found[key] == value for key, value in field.items()):
            return Outcome(action, Result.UNCHANGED)
        with sorting(action.resource):
            self.server.put(action.resource, **field)
        return Outcome(action, Result.DONE)

    def add_members(self, action: AddMembers) -> Outcome:
        there = set(self.folder(action.resource)["users"])
        skipped = tuple(
            Skipped(name, PermanentError(f"{name!r} is no usable username"))
            for name in action.members
            if name == "root" or not NAME.fullmatch(name)
        )
        missing = set(action.members) - there - {left.name for left in skipped}
        with sorting(action.resource):
            for name in sorted(missing):
                self.server.put_user(action.resource, name)
        return Outcome(action, Result.DONE if missing else Result.UNCHANGED, skipped=skipped)

    def remove_members(self, action: RemoveMembers) -> Outcome:
        found = self.read().get(named(action.resource), {})
        if found and not found["project"].startswith(self.ours):
            raise PermanentError(f"{action.resource}: this folder is not one of the agent's")
        leaving = {*found.get("users", ())}.intersection(action.members)
        with sorting(action.resource):
            for name in sorted(leaving):
                self.server.delete_user(action.resource, name)
        return Outcome(action, Result.DONE if leaving else Result.UNCHANGED)

    def delete_resource(self, action: DeleteResource) -> Outcome:
        folders = self.read()
        found = folders.pop(named(action.resource), None)
        children = [name for name, each in folders.items() if each["project"] == action.resource]
        if children:
            raise PermanentError(
                f"{action.resource}: the project still has {len(children)} folders"
            )
        if found is None:
            return Outcome(action, Result.UNCHANGED)
        project = found["project"] or action.resource
        if not project.startswith(self.ours):
            raise PermanentError(f"{action.resource}: this folder is not one of the agent's")
        is_last = all(each["project"] != project for each in folders.values())
        with sorting(action.resource):
            self.server.delete(action.resource)
            if is_last and action.project_container in folders:
                self.server.delete(action.project_container)
        return Outcome(action, Result.DONE)

    def read(self) -> dict[str, dict[str, Any]]:
        """All folders, in one request."""
        with sorting("the folders"):
            return self.server.folders()

    def folder(self, name: str) -> dict[str, Any]:
        """One folder that must exist."""
        found = self.read().get(named(name))
        if found is None:
            raise PermanentError(f'there is no folder "{name}"; restore it, or order a new one')
        if not found["project"].startswith(self.ours):
            raise PermanentError(f"{name}: this folder is not one of the agent's")
        return found


def named(name: str) -> str:
    """A name that the file server takes."""
    if name == "root" or not NAME.fullmatch(name):
        raise PermanentError(f"{name!r} cannot be the name of a folder; change the slug in Waldur")
    return name


def fits(amount: Decimal) -> bool:
    """Whether the file server can keep an amount."""
    return amount.is_finite() and 0 <= amount <= 2**53 and amount == int(amount)


def amounts(
    name: str, components: Mapping[str, Component], limits: Mapping[str, Decimal | None]
) -> dict[str, int | None]:
    """Limits as the file server takes them: whole numbers of its own units."""
    for component, amount in limits.items():
        if component not in components:
            raise PermanentError(f'{name}: component "{component}" is not configured')
        if amount is not None and not fits(amount):
            raise PermanentError(f"{name}: {component} cannot be {amount}; order another limit")
    return {key: None if amount is None else int(amount) for key, amount in limits.items()}


@contextmanager
def sorting(what: str) -> Iterator[None]:
    """Sort errors of the server into the two families."""
    try:
        yield
    except httpx.HTTPStatusError as error:
        refused = error.response.status_code in REFUSED
        family = PermanentError if refused else TemporaryError
        raise family(f"{what}: the file server answered {error.response.status_code}") from error
    except (httpx.HTTPError, ValueError) as error:
        raise TemporaryError(f"{what}: the file server cannot be reached: {error}") from error
