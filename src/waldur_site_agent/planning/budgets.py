"""Budgets: what a periodic policy in Waldur lets each resource use in a period.

The budget of a component is the limit that was sold, with what is carried over from the period
before; the limit in the backend adds the grace. It is computed here from the policy, never taken
from an event, whose minutes count every component in hours of one TRES.

What has to be known for the whole period is noted in ``backend_metadata`` once, when the period
opens: how much was used in the period before, and how much of the new one the backend no longer
counts because its count was reset later than the period began. Everything else follows from the
policy, the limits and that note, so a pass without news plans nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, tzinfo
from decimal import Decimal
from uuid import UUID

from waldur_site_agent.backends import BackendResource, ResetUsage, SetBudget
from waldur_site_agent.model.budgets import LimitType, PeriodicPolicy, PolicyPeriod, PolicyResult
from waldur_site_agent.model.errors import PermanentError, SiteAgentError, TemporaryError
from waldur_site_agent.model.marketplace import (
    AccountingType,
    Component,
    Resource,
    WaldurComponent,
)
from waldur_site_agent.model.usage import BillingMonth, Period
from waldur_site_agent.planning.limits import (
    EXACT,
    Amounts,
    LimitPrecision,
    limit_changes,
    ordered_limits,
)
from waldur_site_agent.planning.plan import (
    Call,
    Change,
    Step,
    Write,
    amount_text,
    metadata_write,
)

BUDGET = "budget"
"""The key of ``backend_metadata`` with the note of the current period."""

_MONTHS = {PolicyPeriod.MONTH: 1, PolicyPeriod.QUARTER: 3, PolicyPeriod.YEAR: 12}
_FIRST_YEAR = BillingMonth(1970, 1)
_LARGEST_GRACE, _LARGEST_CARRYOVER, _LARGEST_WEIGHT = 1000, 1000, 10**9
"""Beyond what any site means, and far from what cannot be computed."""


@dataclass(frozen=True, slots=True)
class BudgetPeriod:
    """A period of a policy, in the calendar; named as Waldur names it."""

    label: str
    """``2026-11``, ``2026-Q4``, ``2026`` or ``total``."""
    first: BillingMonth = _FIRST_YEAR
    length: int = 0
    """In months; 0 for the one that never ends."""

    @classmethod
    def at(cls, kind: int | str, now: datetime, zone: tzinfo) -> BudgetPeriod:
        """The period of a kind (see :class:`PolicyPeriod`) that an aware moment belongs to.

        Raises:
            PermanentError: the kind is not known.
        """
        if kind == PolicyPeriod.TOTAL:
            return cls("total")
        if not isinstance(kind, int) or kind not in _MONTHS:
            raise PermanentError(
                f"periods of kind {kind} are not known to this version of the agent; upgrade it, "
                "or choose a month, quarter or year in the policy"
            )
        return cls._of(_MONTHS[kind], BillingMonth.of(now, zone))

    @classmethod
    def _of(cls, length: int, month: BillingMonth) -> BudgetPeriod:
        first = BillingMonth(month.year, (month.month - 1) // length * length + 1)
        labels = {1: str(first), 3: f"{first.year:04d}-Q{(first.month + 2) // 3}"}
        return cls(labels.get(length, f"{first.year:04d}"), first, length)

    @classmethod
    def parse(cls, label: str) -> BudgetPeriod:
        """Read a label.

        Raises:
            ValueError: it is none.
        """
        if label == "total":
            return cls(label)
        year, _, rest = label.partition("-")
        if rest.startswith("Q"):
            return cls._of(3, BillingMonth.parse(f"{year}-{3 * int(rest[1:]) - 2:02d}"))
        return cls._of(1 if rest else 12, BillingMonth.parse(f"{year}-{rest or '01'}"))

    @property
    def ends(self) -> bool:
        """Whether another one follows."""
        return bool(self.length)

    @property
    def previous(self) -> BudgetPeriod | None:
        """The one before; ``None`` for the one that never ends."""
        return self._of(self.length, self.first.previous) if self.ends else None

    @property
    def months(self) -> tuple[BillingMonth, ...]:
        """Its months, of one that ends."""
        found = [self.first]
        while len(found) < self.length:
            found.append(found[-1].next)
        return tuple(found)

    def span(self, zone: tzinfo) -> Period:
        """Its beginning and end, of one that ends."""
        first, last = self.months[0], self.months[-1]
        return Period(start=first.period(zone).start, end=last.period(zone).end)


def kind_of_period(policy: PeriodicPolicy, components: Iterable[WaldurComponent]) -> int | str:
    """The kind of period: the one of all limit components, if they agree, else the policy's.

    Raises:
        PermanentError: neither says.
    """
    named = {
        each.limit_period
        for each in components
        if each.billing_type == AccountingType.LIMIT and each.limit_period
    }
    common = PolicyPeriod.OF_COMPONENTS.get(next(iter(named))) if len(named) == 1 else None
    kind = common if common is not None else policy.period
    if kind is None:
        raise PermanentError("Waldur does not say how long a period is; set it in the policy")
    return kind


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetNote:
    """What is kept in Waldur about the budget of a resource, for the whole period."""

    period: str
    used_before: Mapping[str, Decimal] = field(default_factory=dict)
    """By component, the usage of the period before, in measured units."""
    deducted: Mapping[str, Decimal] = field(default_factory=dict)
    """By the backend's types and in its units, what was used in this period before the backend's
    count was reset, so that it is taken off the limit instead."""
    counts_loaded_at: str = ""
    """When the backend had loaded its counts, as they were when this was noted."""
    is_reset: bool = False
    """Whether the count was started anew for the period, or had nothing of others in it."""
    share_before: int | None = None
    """The share before the first budget."""
    per_job: bool = False
    """Whether the limits were set for single jobs."""
    takes_back: bool = False
    """Whether limits of the type that the policy had before may still be on the account."""
    billing: bool = False
    """Whether there was a limit on billing units among them, which nobody has sold."""

    @classmethod
    def read(cls, metadata: Mapping[str, object]) -> BudgetNote | None:
        """The note in ``backend_metadata``; ``None`` if there is none that can be read."""
        found = metadata.get(BUDGET)
        if not isinstance(found, Mapping):
            return None
        share = found.get("share_before")
        try:
            period = BudgetPeriod.parse(str(found.get("period", "")))
            return cls(
                period=period.label,
                used_before=_amounts(found.get("used_before")),
                deducted=_amounts(found.get("deducted")),
                counts_loaded_at=str(found.get("counts_loaded_at") or ""),
                is_reset=found.get("reset") is True,
                share_before=share if isinstance(share, int) else None,
                per_job=found.get("per_job") is True,
                takes_back=found.get("takes_back") is True,
                billing=found.get("billing") is True,
            )
        except (ValueError, ArithmeticError):
            return None

    def written(self) -> dict[str, object]:
        """The note as JSON values."""
        return {
            "period": self.period,
            "used_before": {n: amount_text(a) for n, a in sorted(self.used_before.items())},
            "deducted": {n: amount_text(a) for n, a in sorted(self.deducted.items())},
            "reset": self.is_reset,
            "share_before": self.share_before,
            "per_job": self.per_job,
            "billing": self.billing,
            **({"takes_back": True} if self.takes_back else {}),
            **({"counts_loaded_at": self.counts_loaded_at} if self.counts_loaded_at else {}),
        }


def _amounts(found: object) -> dict[str, Decimal]:
    if not isinstance(found, Mapping):
        return {}
    amounts = {str(name): Decimal(str(value)) for name, value in found.items()}
    if not all(amount.is_finite() and amount >= 0 for amount in amounts.values()):
        raise ValueError("an amount is negative, or not a number")
    return amounts


def has_note(resource: Resource) -> bool:
    """Whether a resource has, or had, a budget that the agent set."""
    return BUDGET in resource.backend_metadata


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """A policy at a moment: what budgets of resources follow from."""

    policy: PeriodicPolicy
    period: BudgetPeriod
    components: Mapping[str, Component]
    """Those with a limit that the backend supports."""
    counts_loaded_at: str = ""
    """When the backend loaded its counts, if resets depend on it; empty: not known."""

    @property
    def is_per_job(self) -> bool:
        """Whether the budget limits single jobs."""
        return self.policy.limit_type == LimitType.PER_JOB

    @property
    def resets(self) -> bool:
        """Whether the backend's count starts from zero in each period."""
        return bool(self.policy.raw_usage_reset) and self.period.ends

    def problem(self) -> str:
        """Why the policy cannot be applied; empty if it can."""
        policy = self.policy
        if policy.apply_to_all is False:
            return (
                "the periodic policy is for some organization groups only, and Waldur does not "
                "show which organizations these are; let it apply to all"
            )
        if policy.limit_type not in (LimitType.TOTAL, LimitType.PER_JOB, None):
            return (
                f"limit type {policy.limit_type} of the periodic policy does not limit what is "
                "used in a period; choose GrpTRESMins, or MaxTRESMins for single jobs"
            )
        if not 0 <= (policy.grace_ratio or 0) <= _LARGEST_GRACE:
            return (
                f"the grace ratio of the periodic policy is {policy.grace_ratio!s:.20}; choose one "
                f"from 0 to {_LARGEST_GRACE}"
            )
        if not 0 <= (policy.carryover_factor or 0) <= _LARGEST_CARRYOVER:
            return (
                f"the carry-over of the periodic policy is {policy.carryover_factor!s:.20} %; "
                f"choose one from 0 to {_LARGEST_CARRYOVER}"
            )
        if policy.carryover_enabled and policy.carryover_factor is None and self.period.ends:
            return (
                "this Waldur does not say how much the periodic policy carries over; upgrade it "
                "to 8.0 or newer, or turn the carry-over off"
            )
        return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What a resource may use in a period."""

    totals: Mapping[str, Decimal]
    """By component, with what is carried over, in measured units."""
    limits: Amounts
    """By the backend's types and in its units, exactly: with the grace, less what the backend no
    longer counts."""
    share: int
    """The share of the account among its siblings."""
    reasons: Mapping[str, str] = field(default_factory=dict)
    """By the backend's types, where the limit comes from."""


def budget_of(limits: Mapping[str, Decimal | None], terms: Terms, note: BudgetNote) -> Budget:
    """The budget for limits that were sold, in measured units.

    Raises:
        PermanentError: a limit is negative or not a finite number.
    """
    ordered_limits(limits, terms.components)  # refuses what is no limit
    grace = 1 + (terms.policy.grace_ratio or 0)
    totals: dict[str, Decimal] = {}
    amounts: Amounts = {}
    reasons: dict[str, str] = {}
    for name, component in sorted(terms.components.items()):
        sold = limits.get(name)
        if sold is None:
            continue
        carried = _carried(sold, note.used_before.get(name, Decimal(0)), terms)
        totals[name] = sold + carried
        for part in component.parts:
            deducted = Decimal(0) if terms.is_per_job else note.deducted.get(part.type, Decimal(0))
            amounts[part.type] = max(Decimal(0), part.to_backend(totals[name]) * grace - deducted)
            reasons[part.type] = _reason(component, sold, carried, deducted, terms)
    billing = _billing(amounts, terms)
    if billing is not None:
        amounts[BILLING] = billing
        reasons[BILLING] = f"from the others by weight, for {terms.period.label}"
    share = max(1, min(int(sum(totals.values()) // _ACCOUNTS), _LARGEST_SHARE))
    return Budget(totals=totals, limits=amounts, share=share, reasons=reasons)


BILLING = "billing"
_ACCOUNTS = 3
"""By what Waldur divides budgets to get shares."""
_LARGEST_SHARE = 2**31 - 2
"""One more is how Slurm stores ``parent``."""
_MIB_PER_GIB = 1024


def _carried(sold: Decimal, used_before: Decimal, terms: Terms) -> Decimal:
    policy = terms.policy
    if not policy.carryover_enabled or not terms.period.ends:
        return Decimal(0)
    most = sold * (policy.carryover_factor or 0) / 100
    return min(max(Decimal(0), sold - used_before), most)


def _reason(
    component: Component, sold: Decimal, carried: Decimal, deducted: Decimal, terms: Terms
) -> str:
    unit, grace = component.measured_unit, terms.policy.grace_ratio or 0
    text = f"{amount_text(sold)} {unit} for {terms.period.label}"
    if carried:
        text += f", {amount_text(carried)} carried over"
    if grace:
        text += f", {amount_text(Decimal(grace) * 100)} % grace"
    if deducted:
        text += f", less {amount_text(deducted)} used before the reset"
    return text


def _billing(amounts: Mapping[str, Decimal], terms: Terms) -> Decimal | None:
    """The limit on billing units, if the policy sets one; none if no weight fits a component."""
    if not terms.policy.tres_billing_enabled or BILLING in amounts:
        return None
    weights = _weights(terms.policy.tres_billing_weights or {}) or DEFAULT_WEIGHTS
    weighed = {name: weights[name] for name in amounts if weights.get(name)}
    if not weighed:
        return None
    return sum(
        (amounts[name] * weight / (_MIB_PER_GIB if name == "mem" else 1))
        for name, weight in weighed.items()
    ) + Decimal(0)


DEFAULT_WEIGHTS = {
    "cpu": Decimal("0.015625"),
    "mem": Decimal("0.001953125"),
    "gres/gpu": Decimal("0.25"),
}
"""Waldur's own, where the policy has none."""


def _weights(found: Mapping[str, object]) -> dict[str, Decimal]:
    weights: dict[str, Decimal] = {}
    for name, value in found.items():
        if isinstance(value, int | float | str) and not isinstance(value, bool):
            try:
                weight = Decimal(str(value))
            except ArithmeticError:
                continue
            if weight.is_finite() and 0 < weight <= _LARGEST_WEIGHT:
                weights[name.lower()] = weight
    return weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """What was read when a period opened for a resource."""

    used_before: Mapping[str, Decimal]
    """By component, the usage of the period before in measured units: Waldur's or the backend's,
    whichever is greater, so that nothing that is not reported yet is carried over."""
    used: Mapping[str, Decimal] = field(default_factory=dict)
    """By the backend's types, the usage of this period so far."""
    counted: Mapping[str, Decimal] = field(default_factory=dict)
    """By the backend's types, what its limits count."""

    def needs_reset(self) -> bool:
        """Whether the backend counts usage of earlier periods.

        If not, there is nothing to reset: the account is new, or it has been reset, by the agent
        in a pass that was interrupted or by Slurm itself.
        """
        return any(amount > self.used.get(name, 0) for name, amount in self.counted.items())

    def deducted(self) -> dict[str, Decimal]:
        """What of this period the backend will not count."""
        counted = {} if self.needs_reset() else self.counted
        missing = {name: amount - counted.get(name, 0) for name, amount in self.used.items()}
        return {name: amount for name, amount in missing.items() if amount > 0}


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetPlan:
    """What one resource needs so that its account has the budget."""

    resource: Resource
    note: BudgetNote | None = None
    """What is to be noted; ``None``: nothing is to be kept."""
    steps: tuple[Step, ...] = ()
    problem: SiteAgentError | None = None
    """Why the budget is not set; the account is left as it is."""
    policy: UUID | None = None
    """The policy in Waldur that is told of the result; ``None`` if it is gone."""

    @property
    def has_ended(self) -> bool:
        """Whether the policy is gone, so that the sold limits are set and the note is dropped."""
        return self.note is None and self.problem is None

    @property
    def note_write(self) -> Write | None:
        """The change of the note in Waldur, if any."""
        if self.problem is not None:
            return None
        before = dict(self.resource.backend_metadata)
        after = {key: value for key, value in before.items() if key != BUDGET}
        if self.note is not None:
            after[BUDGET] = self.note.written()
            reason = f"the budget of {self.note.period}"
        else:
            reason = "the periodic policy has ended"
        return metadata_write(self.resource, after, reason) if after != before else None

    @property
    def noted(self) -> Resource:
        """The resource with the note as it is after the plan."""
        write = self.note_write
        if write is None or not isinstance(write.value, dict):
            return self.resource
        return replace(self.resource, backend_metadata=write.value)

    @property
    def changes_something(self) -> bool:
        """Whether either side is changed."""
        return bool(self.steps) or self.note_write is not None


def needs_opening(resource: Resource, terms: Terms) -> bool:
    """Whether the usage of the period before, and of this one so far, has to be looked up."""
    note = BudgetNote.read(resource.backend_metadata)
    return note is None or _opens(note, terms) or _counts_anew(note, terms)


def _opens(note: BudgetNote, terms: Terms) -> bool:
    return note.period != terms.period.label or (terms.resets and not note.is_reset)


def _counts_anew(note: BudgetNote, terms: Terms) -> bool:
    """Whether the backend has loaded its counts since: they may be those of before the reset."""
    loaded = terms.counts_loaded_at
    return terms.resets and bool(loaded) and note.counts_loaded_at != loaded


def plan_budget(
    resource: Resource,
    found: BackendResource,
    terms: Terms,
    opening: Opening | None = None,
    precision: LimitPrecision = EXACT,
) -> BudgetPlan:
    """Plan the budget of a resource; ``opening`` is needed if :func:`needs_opening`."""
    before = BudgetNote.read(resource.backend_metadata)
    problem = _wrong_time(before, terms)
    if problem is not None:
        return with_problem(resource, problem, terms.policy.uuid)
    steps: list[Step] = []
    note = before
    if note is None or needs_opening(resource, terms):
        if opening is None:
            raise ValueError("a period opens, but nothing was looked up")
        try:
            note, resetting = _opened(resource, found, terms, opening)
        except PermanentError as error:
            return with_problem(resource, error, terms.policy.uuid)
        steps += resetting
    try:
        budget = budget_of(resource.limits, terms, note)
    except PermanentError as error:
        return with_problem(resource, error, terms.policy.uuid)
    steps += _taking_back(resource, found, terms, before, precision)
    takes_back = any(isinstance(step.action, SetBudget) for step in steps)
    sold = {part.type for each in terms.components.values() for part in each.parts}
    has = found.job_limits if terms.is_per_job else found.limits
    had_billing = before is not None and before.billing and (takes_back or BILLING in has)
    note = replace(
        note,
        per_job=terms.is_per_job,
        takes_back=takes_back,
        billing=BILLING in budget.limits.keys() - sold or had_billing,
    )
    steps += _setting(found, budget, note, precision, terms.period)
    return BudgetPlan(resource=resource, note=note, steps=tuple(steps), policy=terms.policy.uuid)


def _wrong_time(note: BudgetNote | None, terms: Terms) -> SiteAgentError | None:
    """Refuse to go back to a period before the one that was opened."""
    if note is None or not terms.period.ends:
        return None
    opened = BudgetPeriod.parse(note.period)
    if not opened.ends or opened.first <= terms.period.months[-1]:
        return None
    return TemporaryError(
        f"the budget of {note.period} has been opened already, and it is {terms.period.label} by "
        "this machine's clock; correct the clock (NTP: chronyc, timedatectl), or remove "
        f'"{BUDGET}" from the backend_metadata of the resource'
    )


def _opened(
    resource: Resource, found: BackendResource, terms: Terms, opening: Opening
) -> tuple[BudgetNote, list[Step]]:
    """The note of a period that opens, or of one whose usage is counted anew; and the reset.

    Raises:
        PermanentError: a limit is negative or not a finite number.
    """
    before = BudgetNote.read(resource.backend_metadata)
    used_before = opening.used_before
    if before is not None and not _opens(before, terms):
        if _counts_as_noted(resource, terms, opening, before):
            return replace(before, counts_loaded_at=terms.counts_loaded_at), []
        used_before = before.used_before
    steps = [_reset(found, terms, opening)] if terms.resets and opening.needs_reset() else []
    note = BudgetNote(
        period=terms.period.label,
        used_before=dict(used_before) if terms.period.ends else {},
        deducted=opening.deducted() if terms.resets else {},
        counts_loaded_at=terms.counts_loaded_at,
        is_reset=terms.resets,
        share_before=before.share_before if before is not None else found.share,
    )
    return note, steps


_TOLERANCE = Decimal("0.01")
"""Of a limit: running jobs are counted, and counts are saved, some minutes late."""


def _counts_as_noted(resource: Resource, terms: Terms, opening: Opening, note: BudgetNote) -> bool:
    """Whether what is counted and what is deducted are still the usage of the period, about."""
    limits = budget_of(resource.limits, terms, replace(note, deducted={})).limits
    return all(
        abs(used - opening.counted.get(name, 0) - note.deducted.get(name, 0))
        <= limits.get(name, Decimal(0)) * _TOLERANCE
        for name, used in opening.used.items()
        if name in limits
    )


def _reset(found: BackendResource, terms: Terms, opening: Opening) -> Step:
    counted = {n: a for n, a in opening.counted.items() if a > opening.used.get(n, 0)}
    shown = ", ".join(f"{name} {amount_text(a)}" for name, a in sorted(counted.items()))
    action = ResetUsage(found.id, terms.period.label, dict(opening.used))
    return Step(action, f"{terms.period.label} begins; of earlier periods {shown} is counted")


def _taking_back(
    resource: Resource,
    found: BackendResource,
    terms: Terms,
    before: BudgetNote | None,
    precision: LimitPrecision,
) -> list[Step]:
    """Take back the limits of the type that the policy had before.

    Planned until they are seen gone: the note is written first, and the agent may die after it.
    """
    if before is None or (before.per_job == terms.is_per_job and not before.takes_back):
        return []
    if not terms.is_per_job:
        reason = "the policy limits no single jobs any more"
        return [_without_job_limits(found, reason)] if found.job_limits else []
    sold = ordered_limits(resource.limits, terms.components)
    limits: dict[str, Decimal | None] = {**limit_changes(sold, found.limits, precision)}
    if before.billing and BILLING in found.limits.keys() - sold.keys():
        limits[BILLING] = None
    reason = "sold in Waldur; the policy limits single jobs only"
    action = SetBudget(found.id, limits)
    return [Step(action, reason, before=found.limits)] if limits else []


def _setting(
    found: BackendResource,
    budget: Budget,
    note: BudgetNote,
    precision: LimitPrecision,
    period: BudgetPeriod,
) -> list[Step]:
    has = found.job_limits if note.per_job else found.limits
    limits: dict[str, Decimal | None] = {**limit_changes(budget.limits, has, precision)}
    if note.billing and BILLING in has and BILLING not in budget.limits:
        limits[BILLING] = None
    share = budget.share if found.share != budget.share else None
    if not limits and share is None:
        return []
    action = SetBudget(found.id, limits, per_job=note.per_job, share=share)
    reason = f"budget of {period.label}"
    return [Step(action, reason, before=_shown(found, has), reasons=budget.reasons)]


SHARE = "fairshare"


def _shown(found: BackendResource, limits: Mapping[str, Decimal]) -> dict[str, Decimal]:
    share = {} if found.share is None else {SHARE: Decimal(found.share)}
    return {**limits, **share}


def _without_job_limits(found: BackendResource, reason: str) -> Step:
    action = SetBudget(found.id, dict.fromkeys(found.job_limits), per_job=True)
    return Step(action, reason, before=found.job_limits)


def plan_end(
    resource: Resource,
    found: BackendResource,
    components: Mapping[str, Component],
    precision: LimitPrecision = EXACT,
) -> BudgetPlan:
    """Plan what follows the end of a policy: the limits that were sold, and the share of before.

    Otherwise the last budget would pass for the site's own limits.
    """
    note = BudgetNote.read(resource.backend_metadata)
    try:
        sold = ordered_limits(resource.limits, components)
    except PermanentError as error:
        return with_problem(resource, error)
    limits: dict[str, Decimal | None] = {**limit_changes(sold, found.limits, precision)}
    if note is not None and note.billing and BILLING in found.limits:
        limits[BILLING] = None
    share = note.share_before if note is not None else None
    share = share if share != found.share else None
    reason = "sold in Waldur; the periodic policy has ended"
    steps = []
    if note is not None and (note.per_job or note.takes_back) and found.job_limits:
        steps.append(_without_job_limits(found, reason))
    if limits or share is not None:
        action = SetBudget(found.id, limits, share=share)
        steps.append(Step(action, reason, before=_shown(found, found.limits)))
    return BudgetPlan(resource=resource, steps=tuple(steps))


def with_problem(
    resource: Resource, problem: SiteAgentError, policy: UUID | None = None
) -> BudgetPlan:
    """A resource whose budget cannot be set now."""
    note = BudgetNote.read(resource.backend_metadata)
    return BudgetPlan(resource=resource, note=note, problem=problem, policy=policy)


NEW_ACCOUNT = "its account is made again"


def without_note(resource: Resource, reason: str) -> Write:
    """Drop the note of a budget."""
    kept = {key: value for key, value in resource.backend_metadata.items() if key != BUDGET}
    return metadata_write(resource, kept, reason)


def result_write(plan: BudgetPlan, account: str, error: str) -> Write | None:
    """Report to Waldur what became of a budget; ``None`` if no policy is there to be told.

    Args:
        plan: the budget.
        account: the name of the account.
        error: why it could not be set; empty if it is set.
    """
    if plan.policy is None:
        return None
    done = [text for step in plan.steps for text in _as_text(step)]
    result = PolicyResult(
        resource_uuid=plan.resource.uuid,
        success=not error,
        error_message=error,
        commands_executed=() if error else tuple(done),
    )
    shown = f"not set: {error}" if error else "set"
    return Write(
        call=Call.REPORT_POLICY_RESULT,
        uuid=plan.policy,
        about=account,
        changes=(Change("budget", None, shown),),
        reason="result of the periodic policy",
        value=result,
    )


def _as_text(step: Step) -> Iterable[str]:
    """What a step changed, in Slurm's words, as Waldur shows it."""
    match step.action:
        case ResetUsage():
            yield "RawUsage=0"
        case SetBudget(limits=limits, per_job=per_job, share=share):
            if share is not None:
                yield f"{SHARE}={share}"
            amounts = ",".join(f"{n}={-1 if a is None else a}" for n, a in sorted(limits.items()))
            if amounts:
                yield f"{LimitType.PER_JOB if per_job else LimitType.TOTAL}={amounts}"
        case _:
            return
