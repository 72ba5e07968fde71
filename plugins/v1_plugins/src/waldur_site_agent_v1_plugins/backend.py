"""A backend that stands in front of a plugin of version 1."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any, ClassVar
from uuid import UUID

from waldur_site_agent.backends import (
    Access,
    AddMembers,
    Backend,
    BackendResource,
    BackendSettings,
    BackendState,
    Capabilities,
    Check,
    CheckStatus,
    CreateResource,
    DeleteResource,
    Outcome,
    PermanentError,
    Progress,
    RemoveMembers,
    Result,
    SetAccess,
    SetLimits,
    SiteAgentError,
    Skipped,
    TemporaryError,
)
from waldur_site_agent.model.backend import Facts, Placement, ResourceFacts, ResourceRequest
from waldur_site_agent.model.marketplace import Component, OfferingUser, TeamMember
from waldur_site_agent.model.usage import Period, ResourceUsage, UsageReport
from waldur_site_agent_v1_plugins.calls import V1Plugin
from waldur_site_agent_v1_plugins.errors import masked, says_conflict, sorted_error
from waldur_site_agent_v1_plugins.interface.backend.backends import BackendRole, BaseBackend
from waldur_site_agent_v1_plugins.interface.backend.exceptions import UserNotProvisionedError
from waldur_site_agent_v1_plugins.known import Profile
from waldur_site_agent_v1_plugins.records import (
    people_arguments,
    resource_object,
    term_of,
    user_context,
)
from waldur_site_agent_v1_plugins.settings import (
    COMPONENT_SCHEMAS,
    SETTINGS_SCHEMAS,
    V1Settings,
    as_number,
    components_as_written,
    schema_warnings,
    secrets_in,
    without_secrets,
)
from waldur_site_agent_v1_plugins.swallowed import swallowed_failures

_TOTAL = "TOTAL_ACCOUNT_USAGE"
_USERNAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+-]{0,253}")
_ID = re.compile(r"[^\s\x00-\x1f\x7f]{1,1000}")
UNATTRIBUTED = ""
"""The user of usage that the plugin has in the total, but not for any user."""


class V1Backend(Backend):
    """Reads and changes things through a plugin of version 1; each pass has its own instance."""

    Settings: ClassVar[type[BackendSettings]] = V1Settings
    supports = frozenset(
        {CreateResource, DeleteResource, SetLimits, AddMembers, RemoveMembers, SetAccess}
    )
    interface: ClassVar[str] = "version 1"
    plugin: ClassVar[V1Plugin]
    profile: ClassVar[Profile]

    def __init__(self, settings: V1Settings, components: Mapping[str, Component]) -> None:
        super().__init__(settings, components)
        self.capabilities = self._capabilities()
        self._written = settings.as_written()
        self._secrets = [*secrets_in(self._written)]
        self._facts: dict[UUID, ResourceFacts] = {}
        self._accounts: dict[str, UUID] = {}
        self._candidates: dict[str, UUID] = {}
        self._users: tuple[OfferingUser, ...] = ()
        self._teams: dict[UUID, tuple[TeamMember, ...]] = {}
        self._provider: UUID | None = None
        self._there_before: dict[UUID, frozenset[str] | None] = {}
        """By resource, what this process saw before its first attempt to create it."""
        self._current: BaseBackend | None = None

    @classmethod
    def _capabilities(cls) -> Capabilities:
        return Capabilities(
            tells_members=cls.profile.tells_members,
            tells_limits=False,
            tells_access=False,
            tells_all=False,
            recognizes_unfinished=False,
            assigns_ids=True,
            finishes_later=cls.plugin.cls.supports_async_orders,
            needs_facts=True,
            keeps_usage=False,
            usage_may_decrease=cls.plugin.cls.supports_decreasing_usage,
        )

    def hear(self, facts: Facts) -> None:
        """Remember Waldur's facts; they are made into the objects that the plugin reads."""
        for each in facts.resources:
            self._facts[each.uuid] = each
            if each.account:
                self._accounts[each.account] = each.uuid
        self._users = facts.users or self._users
        self._teams |= facts.teams
        self._provider = facts.provider or self._provider

    def diagnose(self) -> Iterator[Check]:
        """Ping, the plugin's own diagnostics, and its schemas."""
        name = self.plugin.name
        for text in schema_warnings(SETTINGS_SCHEMAS, name, self._written):
            yield Check(name="backend_settings", verdict=CheckStatus.WARNING, detail=text)
        try:
            instance = self._new_instance()
            self._ping(instance)
            with self._sorting("its diagnostics failed"):
                is_well = bool(instance.diagnostics())
        except SiteAgentError as error:
            yield Check(
                name=f"plugin {name}",
                verdict=CheckStatus.FAILED,
                detail=error.problem,
                remedy=error.remedy or f"see the documentation of {self.plugin.distribution}",
            )
            return
        yield Check(
            name=f"plugin {name}",
            verdict=CheckStatus.OK if is_well else CheckStatus.FAILED,
            detail=f"{self.plugin.distribution} answers" if is_well else "its diagnostics failed",
            remedy="" if is_well else "the plugin has logged the reason",
        )

    def place(self, request: ResourceRequest, slug: str) -> Placement:
        """The id that the plugin makes of a slug; it may give another one at the creation."""
        with self._sorting(f'"{request.resource_name}": no id for it', failed_for_good=True):
            name = str(self._instance()._get_resource_backend_id(slug)).strip().lower()
        if not slug.strip() or not _USERNAME.fullmatch(name):
            raise PermanentError(
                f'"{request.resource_name}": "{name}" cannot be the id of a resource; '
                "change the slug in Waldur and order again"
            )
        if request.uuid is not None:
            self._candidates[name] = request.uuid
        return Placement(id=name, title=request.resource_name, parent="", organization="")

    def observe(self, ids: Iterable[str] | None = None) -> BackendState:
        """Pull the resources that Waldur names, or those named by ``ids``, between two pings."""
        wanted = set(self._accounts) if ids is None else {each.lower() for each in ids}
        instance = self._new_instance()
        self._ping(instance)
        if instance.supports_cycle_preflight:
            with self._sorting("it is not ready"):
                instance.run_preflight()
        known = {name: self._object(name) for name in sorted(wanted & self._accounts.keys())}
        if self._only_reports:
            found = self._taken_for_granted(known)
        else:
            found = self._pulled(instance, known)
        for name in sorted(wanted - self._accounts.keys()):
            if self._exists_already(instance, name):
                found[name] = BackendResource(id=name, parent="", limits_are_known=False)
        self._ping(instance)
        return BackendState(resources=found)

    @staticmethod
    def _taken_for_granted(names: Iterable[str]) -> dict[str, BackendResource]:
        """The resources of a plugin that only reports usage: it has figures or none.

        A resource that it has no figures for is not missing, so Waldur's word stands.
        """
        return {name: BackendResource(id=name, parent="", limits_are_known=False) for name in names}

    def _pulled(
        self, instance: BaseBackend, known: Mapping[str, Any]
    ) -> dict[str, BackendResource]:
        if not known:
            return {}
        with swallowed_failures() as heard:
            with self._sorting("its resources could not be read"):
                pulled = self.plugin.pull(instance, list(known.values()))
            infos = {str(name).strip().lower(): info for name, (_, info) in pulled.items()}
            missing = sorted(known.keys() - infos.keys())
            if missing:
                self._confirm_absence(instance, missing)
        if missing and heard:
            raise TemporaryError(
                f"{missing[0]}: the plugin did not find it, but logged an error while it looked, "
                f"which may be why; read again next time: {self._text(heard[0])}"
            )
        return {
            name: self._resource(instance, name, infos[name]) for name in known if name in infos
        }

    def _confirm_absence(self, instance: BaseBackend, names: Iterable[str]) -> None:
        """Make sure that what was not pulled does not exist, as far as the plugin can tell.

        Plugins may take a failed read for an absence, so they are asked in another way as well.
        """
        try:
            listed = {str(info.backend_id).strip().lower() for info in instance.list_resources()}
        except (NotImplementedError, AttributeError):
            return  # it lists nothing: what it pulled stands
        except Exception as error:
            raise self._sorted("its list of resources could not be read", error) from error
        if hidden := sorted(listed.intersection(names)):
            raise TemporaryError(
                f"{hidden[0]}: the plugin lists it, but could not read it; read again next time"
            )

    def _resource(self, instance: BaseBackend, name: str, info: Any) -> BackendResource:
        members = (
            frozenset(map(str, info.users or ())) if self.profile.tells_members else frozenset()
        )
        metadata: dict[str, Any] = dict(getattr(info, "backend_metadata", None) or {})
        try:
            metadata |= instance.get_resource_metadata(self._id(name)) or {}
        except Exception:  # noqa: BLE001 - what Waldur has of it stays as it is
            metadata = dict(metadata)
        return BackendResource(
            id=name,
            parent="",
            members=members,
            limits_are_known=False,
            metadata=without_secrets(metadata),
        )

    def _exists_already(self, instance: BaseBackend, name: str) -> bool:
        """Whether a resource of this id exists that Waldur does not name yet.

        A plugin that creates in its own way may not understand ids that it did not give.
        """
        uuid = self._candidates.get(name)
        if uuid is None or uuid not in self._facts or self._gives_ids:
            return False
        if not self._does(BackendRole.ORDER_PROCESSING):
            return False  # backends for usage alone may report whatever they are asked for
        with self._sorting(f"{name}: could not be read"):
            return bool(self.plugin.pull(instance, [resource_object(self._facts[uuid], name)]))

    def create_resource(self, action: CreateResource) -> Outcome:
        """Create through the way that the plugin has; the id that it gives is what Waldur gets."""
        self._require(BackendRole.ORDER_PROCESSING)
        facts = action.facts
        if facts is None or not facts.record:
            raise TemporaryError(f"{action.resource}: Waldur's description of it is not known yet")
        self.hear(Facts(resources=(facts,)))
        instance = self._instance()
        self._ping(instance)
        what = f"{action.resource}: cannot create"
        if action.may_exist and (found := self._interrupted(instance, action, facts)):
            return found
        self._there_before.setdefault(facts.uuid, self._listed(instance))
        try:
            info = self.plugin.create(
                instance,
                resource_object(facts),
                action.resource,
                user_context(self._teams.get(_project(facts), ()), self._users),
            )
        except Exception as error:
            if action.may_exist and says_conflict(error):
                raise self._half_made(action, error) from error
            raise self._sorted(what, error) from error
        backend_id = str(getattr(info, "backend_id", "") or "")
        if not _ID.fullmatch(backend_id):
            raise TemporaryError(f"{what}: the plugin gave no id")
        self._named(facts, backend_id)
        reference = str(getattr(info, "pending_order_id", "") or "")
        if reference and self.capabilities.finishes_later:
            return Outcome(action, Result.PENDING, assigned_id=backend_id, reference=reference)
        return Outcome(action, Result.DONE, assigned_id=backend_id)

    def _interrupted(
        self, instance: BaseBackend, action: CreateResource, facts: ResourceFacts
    ) -> Outcome | None:
        """What became of an earlier attempt; ``None`` if the resource can be created now.

        Raises:
            TemporaryError: nobody but a person can tell.
        """
        if self.profile.marks_resources:
            return None
        if not self._gives_ids:
            resource = resource_object(facts, action.resource)
            with self._sorting(f"{action.resource}: could not be read"):
                if not self.plugin.pull(instance, [resource]):
                    return None
                instance._setup_resource_limits(action.resource, resource)
            self._named(facts, action.resource)
            return Outcome(action, Result.DONE, assigned_id=action.resource)
        before, now = self._there_before.get(facts.uuid), self._listed(instance)
        if before is not None and now is not None and now <= before:
            return None  # this process saw the attempt fail, and nothing new is there
        raise self._half_made(action)

    def _half_made(self, action: CreateResource, error: Exception | None = None) -> TemporaryError:
        """What an interrupted creation ends in where nobody but a person can tell."""
        refusal = f": {error}" if error is not None else ""
        text = self._text(
            f"{action.resource}: an earlier attempt to create it was interrupted, and the plugin "
            f"{self.plugin.name} cannot tell whether it is there{refusal}"
        )
        return TemporaryError(
            text,
            remedy="look in the backend: if it is there, set its id as backend_id of the resource "
            'in Waldur; if not, remove "creating" from the backend_metadata of the resource',
        )

    @property
    def _gives_ids(self) -> bool:
        """Whether the plugin may create resources under ids of its own."""
        return self.plugin.creates_by_itself and not self.profile.keeps_ids

    def _listed(self, instance: BaseBackend) -> frozenset[str] | None:
        """The ids of everything, or ``None`` if the plugin cannot list them."""
        try:
            return frozenset(str(info.backend_id) for info in instance.list_resources())
        except Exception:  # noqa: BLE001 - then nothing can be concluded from it
            return None

    def set_limits(self, action: SetLimits) -> Outcome:
        """Set limits in Waldur's units, as version 1 did; plugins count months themselves."""
        self._require(BackendRole.ORDER_PROCESSING)
        instance, resource = self._for_writing(action.resource)
        term = term_of(self._facts.get(self._accounts[action.resource]))
        limits = {
            name: as_number(self.components[name].for_term(term).to_measured(amount))
            for name, amount in action.limits.items()
            if amount is not None and name in self.components
        }
        if unknown := sorted(action.limits.keys() - self.components.keys()):
            raise PermanentError(
                f'{action.resource}: component "{unknown[0]}" is not configured; add it to '
                "backend_components"
            )
        if any(amount is not None and amount < 0 for amount in action.limits.values()):
            raise PermanentError(f"{action.resource}: a limit is negative; order another")
        with self._sorting(f"{action.resource}: cannot set limits"):
            reference = self.plugin.set_limits(
                instance, resource, self._id(action.resource), limits
            )
        if reference and self.capabilities.finishes_later:
            return Outcome(action, Result.PENDING, reference=reference)
        return Outcome(action, Result.DONE)

    def delete_resource(self, action: DeleteResource) -> Outcome:
        """Delete, and believe it only after asking again."""
        self._require(BackendRole.ORDER_PROCESSING)
        if action.resource not in self._accounts:
            return self._unknown_deletion(action)
        instance, resource = self._for_writing(action.resource)
        what = f"{action.resource}: cannot delete"
        if action.resource not in self._pulled(instance, {action.resource: resource}):
            self._ping(instance)
            return Outcome(action, Result.UNCHANGED)
        slug = str(self._facts[self._accounts[action.resource]].record.get("project_slug") or "")
        with self._sorting(what):
            reference = self.plugin.delete(instance, resource, slug)
        if reference and self.capabilities.finishes_later:
            return Outcome(action, Result.PENDING, reference=reference)
        if not self._written.get("soft_delete"):
            left = self._pulled(instance, {action.resource: resource})
            self._ping(instance)
            if action.resource in left:
                raise TemporaryError(f"{what}: the plugin reported no error, but it is still there")
        return Outcome(action, Result.DONE)

    def _unknown_deletion(self, action: DeleteResource) -> Outcome:
        """A resource left by an interrupted creation has only the id that was planned."""
        uuid = self._candidates.get(action.resource)
        facts = self._facts.get(uuid) if uuid is not None else None
        if facts is None:
            if not _USERNAME.fullmatch(action.resource):
                raise PermanentError(f"{action.resource!r} cannot be the id of a resource")
            return Outcome(action, Result.UNCHANGED)
        self._named(facts, action.resource)
        return self.delete_resource(action)

    def add_members(self, action: AddMembers) -> Outcome:
        """Add members with what Waldur says of them."""
        return self._members(action, self.plugin.add, "added")

    def remove_members(self, action: RemoveMembers) -> Outcome:
        """Remove members; those whom the plugin still has are left out."""
        return self._members(action, self.plugin.remove, "removed")

    def _members(
        self, action: AddMembers | RemoveMembers, call: Callable[..., Any], done: str
    ) -> Outcome:
        self._require(BackendRole.MEMBERSHIP_SYNC)
        if not action.members:
            return Outcome(action, Result.UNCHANGED)
        instance, resource = self._for_writing(action.resource)
        self._ping(instance)
        usable = [name for name in action.members if _USERNAME.fullmatch(name)]
        skipped = [
            Skipped(name, PermanentError(f"{name!r} is no usable username"))
            for name in action.members
            if name not in usable
        ]
        if usable:
            facts = self._facts[self._accounts[action.resource]]
            team = self._teams.get(_project(facts), ())
            arguments = people_arguments(usable, team, self._users)
            with self._sorting(f"{action.resource}: members could not be {done}"):
                served, failed = call(
                    instance, resource, self._id(action.resource), usable, arguments
                )
            skipped += self._not_served(action, usable, served, failed, done)
        if len(skipped) == len(action.members):
            worst = next((e.error for e in skipped if isinstance(e.error, TemporaryError)), None)
            if worst is not None and isinstance(action, RemoveMembers):
                return Outcome(action, Result.FAILED, worst)
            return Outcome(action, Result.UNCHANGED, skipped=tuple(skipped))
        return Outcome(action, Result.DONE, skipped=tuple(skipped))

    def _not_served(
        self,
        action: AddMembers | RemoveMembers,
        names: Iterable[str],
        served: frozenset[str],
        failed: Mapping[str, Exception],
        done: str,
    ) -> Iterator[Skipped]:
        for name in names:
            if name in failed:
                error = failed[name]
                yield Skipped(name, self._sorted(f"{name}: not {done}", error))
            elif name not in served:
                waits = UserNotProvisionedError("the plugin does not serve this user yet")
                yield Skipped(name, sorted_error(f"{action.resource}: {name}", waits))

    def set_access(self, action: SetAccess) -> Outcome:
        """Pause, downscale or restore."""
        instance, _ = self._for_writing(action.resource)
        call = {
            Access.PAUSED: instance.pause_resource,
            Access.DOWNSCALED: instance.downscale_resource,
            Access.NORMAL: instance.restore_resource,
        }[action.access]
        what = f"{action.resource}: not {action.access.value}"
        self._ping(instance)
        with self._sorting(what):
            answer = call(self._id(action.resource))
        if answer is False and action.access is not Access.NORMAL:
            raise PermanentError(f"{what}: the plugin {self.plugin.name} could not do it")
        return Outcome(action, Result.DONE)

    def progress(self, reference: str) -> Progress:
        """Ask the plugin for an order that it finishes later."""
        instance = self._instance()
        self._ping(instance)
        with self._sorting(f'order "{reference}" of the plugin failed', failed_for_good=True):
            is_done = instance.check_pending_order(reference)
        return Progress(Result.DONE if is_done else Result.PENDING)

    def usages(
        self, since: Mapping[str, datetime], periods: Sequence[Period]
    ) -> tuple[UsageReport, ...]:
        """The usage of whole months, as the plugin has it."""
        self._require(BackendRole.REPORTING)
        instance = self._new_instance()
        self._ping(instance)
        reports = tuple(self._usage(instance, since, period) for period in periods)
        self._ping(instance)
        return reports

    def _usage(
        self, instance: BaseBackend, since: Mapping[str, datetime], period: Period
    ) -> UsageReport:
        if period.start.day != 1 or period.end.day != 1:
            raise PermanentError(f"the plugin {self.plugin.name} can tell usage by month only")
        found: dict[str, ResourceUsage] = {}
        unknown: dict[str, str] = {}
        untold: set[str] = set()
        is_current = period.end > datetime.now(UTC)
        for name in since:
            resource, backend_id = self._object(name), self._id(name)
            try:
                usage = (
                    self.plugin.current_usage(instance, resource, backend_id)
                    if is_current
                    else self.plugin.past_usage(instance, resource, backend_id, period.start)
                )
            except Exception as error:  # noqa: BLE001 - one resource must not stop the others
                unknown[name] = self._text(f"its usage could not be read: {error}")
                continue
            if _TOTAL in usage:
                found[name] = self._resource_usage(usage)
            else:
                untold.add(name)
        resources = {name: found.get(name, ResourceUsage()) for name in since}
        return UsageReport(
            period=period, resources=resources, unknown=unknown, untold=frozenset(untold)
        )

    def _resource_usage(self, usage: Mapping[str, Mapping[str, Any]]) -> ResourceUsage:
        total = self._amounts(usage[_TOTAL])
        by_user = {
            str(user): self._amounts(amounts) for user, amounts in usage.items() if user != _TOTAL
        }
        rest = {
            name: left
            for name, amount in total.items()
            if (left := amount - sum(a.get(name, Fraction(0)) for a in by_user.values())) > 0
        }
        return ResourceUsage(by_user={**by_user, UNATTRIBUTED: rest} if rest else by_user)

    def _amounts(self, amounts: Mapping[str, Any]) -> dict[str, Fraction]:
        """Amounts in backend units; the plugin has Waldur's."""
        return {
            name: Fraction(Decimal(str(amount))) * Fraction(self.components[name].unit_factor)
            for name, amount in amounts.items()
            if name in self.components and amount is not None
        }

    def _instance(self) -> BaseBackend:
        """The instance of this pass."""
        return self._current or self._new_instance()

    def _new_instance(self) -> BaseBackend:
        with self._sorting(f"the plugin {self.plugin.name} cannot be started"):
            instance = self.plugin.cls(self._written, components_as_written(self.components))
        instance.service_provider_uuid = self._provider.hex if self._provider else None
        self._current = instance
        return instance

    def _ping(self, instance: BaseBackend) -> None:
        """Make sure that the backend answers, so that an absence is no failure.

        Raises:
            TemporaryError: it does not, for whatever reason.
        """
        try:
            answers = self.plugin.ping(instance)
        except Exception as error:
            text = self._text(f"the backend of the plugin {self.plugin.name} is away: {error}")
            raise TemporaryError(text) from error
        if not answers:
            raise TemporaryError(f"the backend of the plugin {self.plugin.name} does not answer")

    def _for_writing(self, name: str) -> tuple[BaseBackend, Any]:
        if name not in self._accounts and self._candidates.get(name) in self._facts:
            self._named(self._facts[self._candidates[name]], name)  # adopted in this pass
        if name not in self._accounts:
            raise PermanentError(
                f"{name!r} is no resource that Waldur knows; correct the backend_id in Waldur"
            )
        return self._instance(), self._object(name)

    def _object(self, name: str) -> Any:
        return resource_object(self._facts[self._accounts[name]])

    def _id(self, name: str) -> str:
        """The id in the spelling of the plugin."""
        return self._facts[self._accounts[name]].backend_id.strip()

    def _named(self, facts: ResourceFacts, backend_id: str) -> None:
        record = {**facts.record, "backend_id": backend_id}
        named = ResourceFacts(
            uuid=facts.uuid,
            backend_id=backend_id,
            attributes=facts.attributes,
            options=facts.options,
            plugin_options=facts.plugin_options,
            record=record,
        )
        self.hear(Facts(resources=(named,)))

    def _does(self, role: BackendRole) -> bool:
        return role.value in self._roles()

    @property
    def _only_reports(self) -> bool:
        return self._roles() == {BackendRole.REPORTING.value}

    def _roles(self) -> set[str]:
        return {str(getattr(each, "value", each)) for each in self.plugin.cls.supported_roles}

    def _require(self, role: BackendRole) -> None:
        if not self._does(role):
            raise TemporaryError(
                f"the plugin {self.plugin.name} does not do {role.value}; name another backend for "
                f"it in the configuration (it does {', '.join(sorted(self._roles()))})"
            )

    @contextmanager
    def _sorting(self, what: str, *, failed_for_good: bool = False) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            raise self._sorted(what, error, failed_for_good=failed_for_good) from error

    def _sorted(
        self, what: str, error: Exception, *, failed_for_good: bool = False
    ) -> SiteAgentError:
        return sorted_error(what, error, secrets=self._secrets, failed_for_good=failed_for_good)

    def _text(self, text: str) -> str:
        return masked(text, self._secrets)


def component_warnings(backend: V1Backend) -> Iterator[str]:
    """What the plugin's schema says against the components."""
    for name, component in components_as_written(backend.components).items():
        for text in schema_warnings(COMPONENT_SCHEMAS, backend.plugin.name, component):
            yield f"{name}: {text}"


def _project(facts: ResourceFacts) -> UUID:
    """The key of a resource's team."""
    try:
        return UUID(str(facts.record.get("project_uuid")))
    except ValueError:
        return facts.uuid
