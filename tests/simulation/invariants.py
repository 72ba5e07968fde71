"""What must hold after each step of an agent, and once everything is quiet again.

The numbers are those of the invariants of the design: 1 nobody has access whom Waldur does not
grant it, 2 nobody loses it because of a bad reading, 3 an order reaches one final state, 4 without
news nothing is written, 5 what is somebody else's stays as it is, 6 removals are bounded, 7 usage
is what the jobs used, 11 nothing is final that was not looked at, 14 usage is reset once a period
at most, and what may be used of a budget is what has not been used of it.
"""

from __future__ import annotations

import fcntl
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from fractions import Fraction

import httpx

from simulation import expected
from simulation.agents import TIGHT
from simulation.world import PREPAID, Qos, World
from waldur_site_agent_sandbox import Order, PeriodicPolicy, Resource
from waldur_site_agent_slurm.simulator.jobs import counted as used_of
from waldur_site_agent_slurm.simulator.state import SimAccount

Members = set[tuple[str, str]]
_IN_WORK = ("Creating", "Updating", "Terminating")
_MOST_REMOVALS = 10
_SECONDS_OF_A_PASS = 60
"""How long it takes at most from planning a budget to the reset of usage."""
FINAL = ("done", "erred", "canceled", "rejected")


class ViolationError(BaseException):
    """Something that must hold does not; no part of the agent may catch it."""

    def __init__(self, invariant: int, what: str, *, expected: object, found: object) -> None:
        super().__init__(f"invariant {invariant}: {what}")
        self.invariant = invariant
        self.what = what
        self.expected = expected
        self.found = found


@dataclass
class Pass:
    """What is known about a pass under way."""

    granted: Members
    """Who might use what at every moment since it began."""
    members: int
    """How many there were in the agent's accounts."""
    removed: set[tuple[str, str]] = field(default_factory=set)


class Monitor:
    """Looks at both sides after each request and each command."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._passes: list[Pass] = []
        self._members = self._all_members()
        self._orders: dict[str, str] = {}
        self._deleted: set[str] = set()
        self._resets = 0
        self._reset_at: dict[str, int] = {}
        """When the usage of an account was reset last; epoch."""
        self._policy_changed = False
        """Whether somebody acted since the pass began."""

    def pass_began(self) -> None:
        """Somebody begins a pass, maybe within that of another agent."""
        granted = expected.granted(self._world)
        ours = {r.backend_id for r in self._world.resources}
        self._members = self._all_members()
        count = sum(account in ours for account, _ in self._members)
        self._passes.append(Pass(granted, count))
        self._policy_changed = False

    def pass_ended(self) -> None:
        """The pass is over, or its agent is dead."""
        self._passes.pop()
        self.others_untouched()

    def customer_acted(self) -> None:
        """Somebody may have lost access by right."""
        self._policy_changed = True
        granted = expected.granted(self._world)
        for each in self._passes:
            each.granted &= granted
        self._members = self._all_members()

    def request_ended(self, request: httpx.Request) -> None:
        """Waldur was asked."""
        if request.method == "GET":
            return
        granted = expected.granted(self._world)
        for each in self._passes:
            each.granted &= granted
        self._look_at_orders()
        self._look_at_deleted()

    def command_began(self, argv: Sequence[str]) -> None:
        """A command is about to run: one that writes needs the lock."""
        if not _writes(argv):
            return
        with self._world.lock_file.open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
        raise ViolationError(8, f"{' '.join(argv)} without the lock", expected="held", found="free")

    def command_ended(self, argv: Sequence[str]) -> None:
        """A command has run: nobody may have lost access who has a right to it."""
        if not _writes(argv):
            return
        found = self._all_members()
        lost, self._members = self._members - found, found
        pass_ = self._passes[-1]
        pass_.granted &= expected.granted(self._world)
        wrongly = sorted(lost & pass_.granted)
        if wrongly:
            raise ViolationError(
                2, f"access was taken by {' '.join(argv)}", expected="they stay", found=wrongly
            )
        if not self._world.removes_strangers and lost & self._world.strangers:
            self._strangers_lost(lost & self._world.strangers)
        self._count_removals(pass_, argv, lost)
        for name in self._world.site_qos.keys() - self._world.slurm.state.accounts.keys():
            del self._world.site_qos[name]
        self._look_at_resets(argv)

    def _look_at_resets(self, argv: Sequence[str]) -> None:
        """Usage is reset once a period, where the policy says so, and only what is older."""
        resets = self._world.slurm.state.usage_resets
        for _, name in resets[self._resets :]:
            policy = expected.policy_of(self._world)
            period = None if policy is None else expected.period_of(self._world, policy)
            if policy is None or period is None or not policy.raw_usage_reset:
                # the policy may have changed a moment ago, within the pass
                if not self._policy_changed:
                    what = f"{name} is reset by {' '.join(argv)}"
                    raise ViolationError(14, what, expected="no reset", found=policy)
                continue
            begin = int(period[0].timestamp())
            if self._reset_at.get(name, 0) >= begin:
                what = f"{name} is reset twice in a period"
                raise ViolationError(14, what, expected="once", found=resets)
            self._reset_at[name] = int(self._world.time.seconds())
        self._resets = len(resets)

    def many_are_to_leave(self) -> bool:
        """Whether the agent may find the removals that are due too many, and wait for somebody."""
        found = self._all_members() - expected.granted(self._world)
        ours = {r.backend_id for r in self._world.resources}
        return self._world.tight or sum(account in ours for account, _ in found) > _MOST_REMOVALS

    def _strangers_lost(self, lost: Members) -> None:
        live = {
            r.backend_id for r in self._world.resources if not expected.is_ending(self._world, r)
        }
        wrongly = sorted(pair for pair in lost if pair[0] in live)
        if wrongly:
            raise ViolationError(5, "users of others were removed", expected="stay", found=wrongly)
        self._world.strangers -= lost

    def _count_removals(self, pass_: Pass, argv: Sequence[str], lost: Members) -> None:
        accounts = self._world.slurm.state.accounts
        ending = {r.backend_id for r in self._world.resources if expected.is_ending(self._world, r)}
        pass_.removed |= {p for p in lost if p[0] in accounts and p[0] not in ending}
        ours = {r.backend_id for r in self._world.resources}
        now = sum(account in ours for account, _ in self._members)
        members = max(pass_.members, now + len(pass_.removed))  # some joined within the pass
        most = max(TIGHT if self._world.tight else _MOST_REMOVALS, members * 30 // 100)
        if len(pass_.removed) > most and not self._world.removals_allowed:
            raise ViolationError(
                6, f"too many removals, at {' '.join(argv)}", expected=most, found=pass_.removed
            )

    def _look_at_orders(self) -> None:
        for order in self._world.sandbox.customer.world.orders.values():
            before = self._orders.get(order.uuid, "")
            if before in FINAL and order.state != before:
                raise ViolationError(3, "a final order changed", expected=before, found=order.state)
            if order.state != before and order.state == "done":
                end = self._world.sandbox.customer.resource_of(order).end_date
                self._world.shown_when_done[order.uuid] = str(end)
                self._is_carried_out(order.uuid)
            if (
                order.state == "erred"
                and order.type == "Restore"
                and self._is_taken(order.resource)
            ):
                self._world.lost_names.add(order.resource)
            elif order.state != before and order.state in ("erred", "rejected"):
                name = self._world.sandbox.customer.resource_of(order).slug
                raise ViolationError(
                    11,
                    f"the {order.type} order of {name} is {order.state}",
                    expected="done, for nothing stands in its way for good",
                    found=order.error_message,
                )
            self._orders[order.uuid] = order.state

    def _is_taken(self, uuid: str) -> bool:
        """Whether another live resource has the name that a restored one had."""
        name = self._world.sandbox.customer.world.resources[uuid].backend_id
        return any(
            r.backend_id == name and r.uuid != uuid and r.state != "Terminated"
            for r in self._world.resources
        )

    def _is_carried_out(self, uuid: str) -> None:
        side = self._world.sandbox.customer
        order = side.world.orders[uuid]
        resource, accounts = side.resource_of(order), self._world.slurm.state.accounts
        account = accounts.get(resource.backend_id)
        wanted: object = "an account"
        if order.type == "Terminate":
            fits, wanted = _is_gone(account), "no account, or a closed one"
        elif order.type in ("Update", "Restore"):
            wanted = expected.limits_of(self._world, resource)
            has_budget = self._world.has_budgets and "budget" in resource.backend_metadata
            fits = account is not None and (
                has_budget or self._has_at_least(account.limits, wanted)
            )
        else:
            fits = account is not None
        if not fits:
            what = f"the {order.type} order of {resource.slug} is done, its account is not so"
            raise ViolationError(3, what, expected=wanted, found=account)

    def _has_at_least(self, found: dict[str, int], wanted: dict[str, int]) -> bool:
        """Whether an account has what was ordered; months only add up until the next pass.

        Where people move the end date while a renewal is open, the later day counts first.
        """
        more = found.get(PREPAID, 0) >= wanted.get(PREPAID, 0)
        return more and {**_sold(found), PREPAID: 0} == {**wanted, PREPAID: 0}

    def _look_at_deleted(self) -> None:
        for user in self._world.sandbox.customer.world.offering_users.values():
            if user.state != "Deleted":
                self._deleted.discard(user.uuid)
            elif user.uuid not in self._deleted:
                self._deleted.add(user.uuid)
                ours = {r.backend_id for r in self._world.resources}
                name = (user.username or "").lower()
                still = sorted(a for a, who in self._all_members() if who == name and a in ours)
                if still:
                    what = f"{name} is marked Deleted"
                    raise ViolationError(11, what, expected="in no account", found=still)

    def others_untouched(self) -> None:
        """Accounts of others are byte for byte as they were."""
        for name, before in self._world.others.items():
            found = self._world.slurm.state.accounts.get(name)
            if found != before:
                raise ViolationError(5, f"{name} was changed", expected=before, found=found)

    def _all_members(self) -> Members:
        return {
            (account.name, name)
            for account in self._world.slurm.state.accounts.values()
            if account.associated
            for name in account.members
        }


def _writes(argv: Sequence[str]) -> bool:
    return argv[0].endswith("sacctmgr") and any(w in ("add", "modify", "remove") for w in argv[:3])


def _sold(found: dict[str, int]) -> dict[str, int]:
    """The limits that are compared: usage components have none of Waldur's."""
    return {name: amount for name, amount in found.items() if name in ("cpu", "mem", PREPAID)}


def _is_gone(account: SimAccount | None) -> bool:
    """Whether an account was deleted, or closed where the site keeps them."""
    return account is None or (not account.members and not any(account.limits.values()))


def check_end(world: World) -> None:
    """Everything is as Waldur says, once it is quiet."""
    Final(world).check()


class Final:
    """The comparison at the end, from the least surprising to the subtlest."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._records = world.sandbox.customer.world
        self._accounts = world.slurm.state.accounts

    def check(self) -> None:
        """Raise a violation, if there is one."""
        self._orders()
        for resource in self._world.resources:
            if resource.state == "Terminated" or self._waits_for_project(resource):
                self._gone(resource)
            elif resource.backend_id:
                self._state(resource)
                self._place(resource)
                self._members(resource)
                self._limits(resource)
                self._access(resource)
                self._notes(resource)
            if resource.backend_id:
                self._usage(resource)
        self._users()

    def _orders(self) -> None:
        for order in self._records.orders.values():
            if order.state not in FINAL and not self._cannot_be_approved(order):
                name = self._records.resources[order.resource].slug
                what = f"the {order.type} order of {name} is open"
                raise ViolationError(3, what, expected="done", found=order.state)

    def _cannot_be_approved(self, order: Order) -> bool:
        """Whether it stays pending, because Waldur approves nothing in a project that has ended."""
        project = self._records.projects[order.project]
        return project.end_date is not None and order.state == "pending-provider"

    def _waits_for_project(self, resource: Resource) -> bool:
        """Whether it was terminated, and its restoration cannot be approved."""
        order = self._records.order_in_progress(resource.uuid)
        return order is not None and order.type == "Restore" and self._cannot_be_approved(order)

    def _gone(self, resource: Resource) -> None:
        account = self._accounts.get(resource.backend_id)
        is_gone = _is_gone(account) if self._world.soft_delete else account is None
        if not is_gone and not self._shares(resource):
            what = f"{resource.slug} is terminated, or to be restored only when its project goes on"
            raise ViolationError(1, what, expected="no account", found=resource.backend_id)

    def _shares(self, resource: Resource) -> bool:
        return any(
            other.backend_id == resource.backend_id
            and other.uuid != resource.uuid
            and other.state != "Terminated"
            for other in self._world.resources
        )

    def _state(self, resource: Resource) -> None:
        if resource.state != "OK" and not self._is_left_in_work(resource):
            what = f"the state of {resource.slug} ({resource.error_message})"
            raise ViolationError(3, what, expected="OK", found=resource.state)
        if resource.backend_id not in self._accounts:
            raise ViolationError(3, f"{resource.slug} has no account", expected=1, found=0)

    def _place(self, resource: Resource) -> None:
        """The account is below that of its project, which is below that of its customer now."""
        project = self._records.projects[resource.project]
        customer = self._records.customers[project.customer]
        wanted = [f"p_{project.slug}", f"c_{customer.slug}", "root"]
        found = [resource.backend_id]
        while len(found) <= len(wanted):
            found.append(self._accounts[found[-1]].parent)
        if found[1:] != wanted:
            what = f"the accounts above {resource.backend_id}"
            raise ViolationError(1, what, expected=wanted, found=found[1:])
        members = self._accounts[resource.backend_id].members
        lost = sorted(name for name, member in members.items() if member.lost_lineage)
        if lost:
            what = f"members of {resource.backend_id} who have lost their place in the tree"
            raise ViolationError(2, what, expected="none", found=lost)

    def _is_left_in_work(self, resource: Resource) -> bool:
        """Whether an order decides about it, or was deleted, after which Waldur leaves it so."""
        withdrawn = resource.uuid in self._world.withdrawn and resource.state in _IN_WORK
        return withdrawn or self._records.order_in_progress(resource.uuid) is not None

    def _members(self, resource: Resource) -> None:
        account = self._accounts[resource.backend_id]
        wanted = expected.members_of(self._world, resource)
        strangers = {who for name, who in self._world.strangers if name == account.name}
        if self._world.removes_strangers:
            strangers = set()
        if set(account.members) != wanted | strangers:
            raise ViolationError(
                1,
                f"the members of {account.name}",
                expected=sorted(wanted | strangers),
                found=sorted(account.members),
            )

    def _limits(self, resource: Resource) -> None:
        if self._is_left_in_work(resource):
            return
        account = self._accounts[resource.backend_id]
        wanted = expected.limits_of(self._world, resource)
        with_moved = expected.limits_of(self._world, resource, with_moved_renewals=True)
        policy = expected.policy_of(self._world)
        if policy is not None:
            self._budget(resource, account, policy)
        elif "budget" in resource.backend_metadata:
            what = f"the note of the budget of {account.name}"
            raise ViolationError(14, what, expected="none", found=resource.backend_metadata)
        elif _sold(account.limits) not in (wanted, with_moved):
            what = f"the limits of {account.name}"
            raise ViolationError(1, what, expected=wanted, found=account.limits)
        limits = expected.user_limits_of(self._world, resource)
        for name, member in account.members.items():
            if (account.name, name) not in self._world.strangers:
                wanted_of_user = limits.get(name, {})
                if member.limits != wanted_of_user:
                    what = f"the limits of {name} in {account.name}"
                    raise ViolationError(1, what, expected=wanted_of_user, found=member.limits)

    def _budget(self, resource: Resource, account: SimAccount, policy: PeriodicPolicy) -> None:
        """What may still be used is the budget less what was used in the period."""
        period = expected.period_of(self._world, policy)
        budgets = expected.budgets_of(self._world, resource, policy)
        counted = used_of(self._world.slurm.state, {account.name}, account.counted_since)
        for name, (low, high) in budgets.items():
            limit = Fraction(account.limits.get(name, -1))
            least, most = low - 2, high + 2
            if policy.raw_usage_reset and period is not None:
                seconds = expected.seconds_used(self._world, resource, name, period[0])
                missing = Fraction(seconds, 60) - counted.get(name, 0)  # was used before the reset
                slack = self._slack(resource, name)
                least, most = low - missing - slack - 2, high - missing + slack + 2
            if not max(least, Fraction(0)) <= limit <= max(most, Fraction(0)):
                raise ViolationError(
                    14,
                    f"the limit of {account.name} on {name} under {policy}",
                    expected=(float(least), float(most)),
                    found=(float(limit), counted, resource.backend_metadata),
                )

    def _slack(self, resource: Resource, name: str) -> Fraction:
        """A few seconds of every job that ran while a budget was planned and usage was reset."""
        widths = [
            run.tres.get(name, 0)
            for run in self._world.slurm.state.runs
            if self._world.owners[run.job] == resource.uuid
        ]
        return Fraction(sum(widths) * _SECONDS_OF_A_PASS, 60)

    def _access(self, resource: Resource) -> None:
        account = self._accounts[resource.backend_id]
        if self._is_left_in_work(resource):
            return
        if resource.paused or resource.downscaled:
            wanted = ["paused" if resource.paused else "limited"]
            found, fits = account.qos, account.qos == wanted
        else:
            site = self._world.site_qos.get(account.name, Qos())
            wanted = [*sorted(site.names), site.default]
            found = [*sorted(account.qos), account.default_qos]
            fits = found == wanted
        if not fits:
            raise ViolationError(5, f"the QOS of {account.name}", expected=wanted, found=found)

    def _notes(self, resource: Resource) -> None:
        restricted = resource.paused or resource.downscaled
        if self._is_left_in_work(resource):
            return
        left = sorted(k for k in resource.backend_metadata if k.endswith("_before"))
        if bool(left) != restricted:
            wanted = "what was so before" if restricted else "nothing"
            what = f"the notes of {resource.slug}"
            raise ViolationError(11, what, expected=wanted, found=resource.backend_metadata)

    def _usage(self, resource: Resource) -> None:
        month = self._world.time.now().date().replace(day=1)
        for each in ((month - timedelta(days=1)).replace(day=1), month):
            totals, parts = expected.usage_of(self._world, resource, each)
            side = self._world.sandbox.customer
            found = side.usages(resource, each)
            found_parts = side.user_usages(resource, each)
            for name, total in totals.items():
                if each < month and name == "gres/gpu":
                    continue  # Waldur takes the rest of a month by usage from staff alone
                by_user = {u: p[name] for u, p in found_parts.items() if p.get(name)}
                if (found.get(name, 0), by_user) != (total, parts[name]):
                    raise ViolationError(
                        7,
                        f"{name} of {resource.slug} ({resource.state}) in {each:%Y-%m}",
                        expected=(total, parts[name]),
                        found=(found.get(name), by_user),
                    )

    def _users(self) -> None:
        for user in self._records.offering_users.values():
            if user.state in ("Requested deletion", "Deleting", "Error deleting"):
                what = f"the account of {user.username}"
                raise ViolationError(1, what, expected="Deleted", found=user.state)
