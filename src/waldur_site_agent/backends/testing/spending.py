"""The contract about usage: whose, when, and exactly how much."""

# ruff: noqa: D102, S101 - names of tests say what they show; asserts are their means

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from waldur_site_agent.backends import AddMembers, Result, TemporaryError
from waldur_site_agent.backends.testing.hooks import Hooks, expect
from waldur_site_agent.model.usage import Period

if TYPE_CHECKING:
    from waldur_site_agent.backends import Backend
    from waldur_site_agent.backends.testing.hooks import Spent

_DAY = timedelta(days=1)


class UsageConformance(Hooks):
    """Usage, of backends that offer the hook ``spend``."""

    @pytest.fixture
    def busy(self, backend: Backend, stem: str) -> str:
        """A resource with two members."""
        if type(self).spend is Hooks.spend:
            pytest.skip(f"no hook spend for {type(backend).__name__}")
        resource = self.created(backend, stem)
        expect(backend, AddMembers(resource, self.people[:2]), Result.DONE)
        return resource

    def test_usage_is_reported_by_user_and_in_total_exactly_and_reading_changes_nothing(
        self, backend: Backend, busy: str, stem: str
    ) -> None:
        idle = self.created(backend, stem, "idle")
        spent = [self.spend(backend, busy, user) for user in self.people[:2]]
        whole, before = _around(*spent), self.everything(backend)
        since = {busy: whole.start, idle: whole.start}
        report = backend.usage(since, whole)
        assert whole == report.period
        assert {idle, busy} == set(report.resources)
        assert not any(report.resources[idle].total.values())
        usage = report.resources[busy]
        for user, part in zip(self.people[:2], spent, strict=True):
            for component, amount in part.amounts.items():
                assert amount == usage.by_user[user][component]
        for component in spent[0].amounts:
            assert usage.total[component] == sum(part.amounts[component] for part in spent)
        assert report == backend.usage(since, whole)
        assert before == self.everything(backend)

    def test_only_what_was_used_within_the_period_and_by_this_resource_counts(
        self, backend: Backend, busy: str
    ) -> None:
        spent = self.spend(backend, busy, self.people[0])
        whole, first, last = _around(spent), spent.period.start, spent.period.end
        since = {busy: whole.start}
        parts = [Period(start=whole.start, end=first), Period(start=first, end=whole.end)]
        together = backend.usages(since, parts)
        assert [part.period for part in together] == parts
        before, after = (part.resources[busy].total for part in together)
        assert not any(before.values())
        assert {name: after[name] for name in spent.amounts} == dict(spent.amounts)
        alone = [backend.usage(since, part).resources for part in parts]
        assert alone == [part.resources for part in together]
        earlier = backend.usage({busy: last}, whole).resources[busy].total
        assert not any(earlier.values()), "it belonged to another resource of the same name"

    def test_usage_of_a_backend_that_is_away_is_not_zero(self, backend: Backend, busy: str) -> None:
        whole = _around(self.spend(backend, busy, self.people[0]))
        with self.unreachable(backend), pytest.raises(TemporaryError):
            backend.usage({busy: whole.start}, whole)


def _around(*spent: Spent) -> Period:
    """A time that has all of this in it, with a day to spare on both sides."""
    return Period(
        start=min(part.period.start for part in spent) - _DAY,
        end=max(part.period.end for part in spent) + _DAY,
    )
