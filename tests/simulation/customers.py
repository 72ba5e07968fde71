"""What people do: customers in the portal, users on the cluster, administrators on both."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from random import Random
from typing import TypeVar

from simulation.world import PREPAID, PREPAID_FACTOR, Qos, World
from waldur_site_agent_sandbox import RefusedError, Resource
from waldur_site_agent_sandbox.generations import Generation
from waldur_site_agent_sandbox.records import JsonObject, Role
from waldur_site_agent_slurm.simulator.state import SimMembership, SimUser

T = TypeVar("T")
_MOST_RESOURCES = 4
_ROLES = ("admin", "manager", "member")


class NothingToDoError(Exception):
    """The action has no object."""


class People:
    """Does one thing after the other, chosen at random; each tells what it was."""

    def __init__(self, world: World, rng: Random) -> None:
        self._world = world
        self._side = world.sandbox.customer
        self._dice = rng

    def first_orders(self) -> str:
        """Something to begin with."""
        return "; ".join(self._one_of({self._order: 1}) for _ in range(self._dice.randint(1, 3)))

    def customers(self) -> str:
        """One to three actions in the portal."""
        return "; ".join(self.customer() for _ in range(self._dice.randint(1, 3)))

    def customer(self) -> str:
        """One action in the portal."""
        weights: dict[Callable[[], str], int] = {
            self._order: 10,
            self._change_limits: 5,
            self._terminate: 4,
            self._withdraw: 3,
            self._join: 8,
            self._leave: 7,
            self._change_role: 3,
            self._let_role_end: 2,
            self._flag: 11,
            self._add_service_account: 3,
            self._add_course_account: 2,
            self._change_project_account: 3,
            self._limit_user: 4,
            self._free_user: 2,
            self._restrict_user: 3,
            self._delete_user: 6,
            self._end_project: 1,
            self._move_project: 4,
            self._restore: 3,
            self._end_expired: 1,
        }
        if self._world.has_budgets:
            weights |= {self._set_policy: 6, self._end_policy: 2, self._send_periodic_limits: 4}
        if self._world.sells_prepaid:
            weights |= {self._renew: 4, self._move_end_date: 2}
        return self._one_of(weights)

    def sales(self) -> str:
        """One step in the life of what was sold: its end, its return, more months."""
        weights: dict[Callable[[], str], int] = {
            self._terminate: 5,
            self._restore: 8,
            self._change_limits: 1,
            self._end_expired: 1,
        }
        if self._world.sells_prepaid:
            weights |= {self._renew: 6, self._move_end_date: 3}
        for _ in range(len(weights)):
            told = self._one_of(weights)
            if not told.endswith(": nothing"):
                return told
        return told

    def jobs(self) -> str:
        """Jobs begin and end."""
        weights: dict[Callable[[], str], int] = {self._start_job: 3, self._end_job: 2}
        return "; ".join(self._one_of(weights) for _ in range(self._dice.randint(1, 4)))

    def administrator(self) -> str:
        """One action on the cluster."""
        weights: dict[Callable[[], str], int] = {
            self._set_qos: 5,
            self._set_limit: 2,
            self._put_stranger: 2,
            self._hide_user: 2,
        }
        return self._one_of(weights)

    def _one_of(self, weights: dict[Callable[[], str], int]) -> str:
        action = self._dice.choices(list(weights), list(weights.values()))[0]
        try:
            return action()
        except NothingToDoError:
            return f"{action.__name__.strip('_')}: nothing"
        except RefusedError as refusal:
            return f"{action.__name__.strip('_')}: refused, {refusal.body}"

    def _pick(self, things: list[T]) -> T:
        if not things:
            raise NothingToDoError
        return self._dice.choice(things)

    # Orders

    def _order(self) -> str:
        live = [r for r in self._world.resources if r.state != "Terminated"]
        if len(live) >= _MOST_RESOURCES:
            raise NothingToDoError
        project = self._pick(self._world.projects)
        limits = self._limits()
        end = self._later_day() if self._world.sells_prepaid else None
        order = self._side.place_create_order(project, "run", {**limits}, end_date=end)
        slug = self._side.resource_of(order).slug
        return f"{project.slug} orders {slug} with {limits}"

    def _limits(self) -> dict[str, int]:
        names = ("cpu", "mem", *((PREPAID,) if self._world.sells_prepaid else ()))
        return {name: self._dice.randint(1, 9) for name in names}

    def _later_day(self) -> date:
        return (self._world.time.now() + timedelta(days=self._dice.randint(2, 400))).date()

    def _renew(self) -> str:
        resource, months = self._live("OK"), self._dice.randint(1, 12)
        limits: JsonObject | None = {**self._limits()} if self._dice.random() < 0.4 else None
        when = self._dice.choice(("approved", "done", "never"))
        self._side.place_renewal_order(resource, months, limits, when)  # type: ignore[arg-type]  # one of them
        return f"{resource.slug} is renewed for {months} months ({when}) with {limits}"

    def _move_end_date(self) -> str:
        resource, day = self._live("OK", "Erred", "Updating"), self._later_day()
        self._side.edit(resource, end_date=day)
        return f"{resource.slug} is to end on {day}"

    def _end_expired(self) -> str:
        orders = self._side.end_expired()
        return f"the end of {len(orders)} resources is ordered, for their day has come"

    def _restore(self) -> str:
        resource = self._live("Terminated")
        if not resource.backend_id or resource.uuid in self._world.lost_names:
            raise NothingToDoError
        self._side.place_restore_order(resource)
        if self._dice.random() < 0.7:
            return f"{resource.slug} is to be restored"
        self._side.edit(self._side.current(resource), state="Terminated")
        self._side.place_restore_order(self._side.current(resource))
        return f"{resource.slug} is to be restored, as two people ask"

    def _live(self, *states: str) -> Resource:
        return self._pick([r for r in self._world.resources if r.state in states])

    def _change_limits(self) -> str:
        resource = self._live("OK")
        limits = self._limits()
        self._side.place_update_order(resource, {**limits})
        return f"{resource.slug} is to have {limits}"

    def _terminate(self) -> str:
        resource = self._live("OK", "OK", "Erred")
        self._side.place_terminate_order(resource)
        return f"{resource.slug} is to be terminated"

    def _withdraw(self) -> str:
        orders = self._side.world.orders.values()
        order = self._pick(
            [o for o in orders if o.state == "pending-provider" and o.type != "Restore"]
        )
        slug = self._side.resource_of(order).slug
        self._side.withdraw_order(order)
        self._world.withdrawn.add(order.resource)
        return f"the {order.type} order of {slug} is withdrawn"

    # Budgets

    def _set_policy(self) -> str:
        """The site gives a policy to the offering, or changes the one that it has."""
        terms = {
            "period": self._dice.choice((2, 2, 2, 3, 4, 1)),
            # servers before 8.0 do not say how much
            "carryover_enabled": self._dice.random() < 0.7
            and Generation(self._world.sandbox.server_version).reached(8),
            "carryover_factor": self._dice.choice((0, 20, 50, 100)),
            "grace_ratio": self._dice.choice((0.0, 0.2, 0.5)),
            "raw_usage_reset": self._dice.random() < 0.8,
            "tres_billing_enabled": self._dice.random() < 0.2,
        }
        policies = list(self._side.world.periodic_policies.values())
        if policies:
            self._side.edit(policies[0], **terms)
        else:
            self._side.add_periodic_policy(None, **terms)  # type: ignore[arg-type]  # by name
        return f"the policy of the offering is {terms}"

    def _end_policy(self) -> str:
        policy = self._pick(list(self._side.world.periodic_policies.values()))
        self._side.remove_periodic_policy(policy)
        return "the policy of the offering ends"

    def _send_periodic_limits(self) -> str:
        if not self._side.world.periodic_policies:
            raise NothingToDoError
        return f"Waldur sends the settings of {self._side.send_periodic_limits()} resources"

    # Members

    def _join(self) -> str:
        project, person = self._pick(self._world.projects), self._pick(self._world.people)
        role = self._dice.choice(_ROLES)
        until = None
        if self._dice.random() < 0.2:
            until = self._world.time.now() + timedelta(hours=self._dice.randint(1, 48))
        if any(r.user == person.uuid for r in self._team(project.uuid)):
            raise NothingToDoError
        self._side.add_member(project, person, role, until)  # type: ignore[arg-type]  # one of _ROLES
        return f"{person.username} joins {project.slug} as {role}" + (
            f" until {until:%m-%d %H:%M}" if until else ""
        )

    def _team(self, project: str) -> list[Role]:
        return self._side.world.team(project, self._world.time.now())

    def _member(self) -> tuple[str, str]:
        roles = [
            (project.slug, self._side.world.users[role.user].username)
            for project in self._world.projects
            for role in self._side.world.team(project.uuid, self._world.time.now())
        ]
        return self._pick(roles)

    def _leave(self) -> str:
        project, person = self._member()
        self._side.remove_member(project, person)
        return f"{person} leaves {project}"

    def _change_role(self) -> str:
        project, person = self._member()
        role = self._dice.choice(_ROLES)
        self._side.add_member(project, person, role)  # type: ignore[arg-type]  # one of _ROLES
        old = [r for r in self._side.world.roles.values() if self._is(r.user, person)]
        place = next(p for p in self._world.projects if p.slug == project)
        old = [r for r in old if r.scope == place.uuid]
        self._side.end_role(min(old, key=lambda r: r.created))
        return f"{person} becomes {role} of {project}"

    def _is(self, uuid: str, username: str) -> bool:
        return self._side.world.users[uuid].username == username

    def _let_role_end(self) -> str:
        place = self._pick(self._world.projects)
        role = self._pick(self._side.world.team(place.uuid, self._world.time.now()))
        until = self._world.time.now() + timedelta(minutes=self._dice.randint(1, 600))
        self._side.edit(role, expiration_time=until)
        name = self._side.world.users[role.user].username
        return f"{name} is in {place.slug} until {until:%m-%d %H:%M}"

    def _end_project(self) -> str:
        project = self._pick(self._world.projects)
        ended = self._side.current(project).end_date is not None
        day = None if ended else (self._world.time.now() - timedelta(days=1)).date()
        self._side.edit(project, end_date=day)
        return f"{project.slug} " + ("goes on" if ended else "has ended")

    def _move_project(self) -> str:
        project = self._side.current(self._pick(self._world.projects))
        customers = [c for c in self._world.customers if c.uuid != project.customer]
        customer = self._pick(customers)
        self._side.move_project(project, customer)
        return f"{project.slug} moves to {customer.slug}"

    # Access

    def _flag(self) -> str:
        resource = self._live("OK", "Erred", "Updating", "Terminating")
        flag = self._dice.choice(("paused", "downscaled", "restrict_member_access"))
        value = not getattr(resource, flag)
        self._side.set_flags(resource, **{flag: value})
        return f"{resource.slug}: {flag} {value}"

    def _add_service_account(self) -> str:
        project = self._pick(self._world.projects)
        name = f"svc{len(self._side.world.project_accounts)}"
        self._side.add_service_account(project, name)
        return f"{project.slug} gets the service account {name}"

    def _add_course_account(self) -> str:
        project = self._pick(self._world.projects)
        name = f"course{len(self._side.world.project_accounts)}"
        self._side.add_course_account(project, name)
        return f"{project.slug} gets the course account {name}"

    def _change_project_account(self) -> str:
        account = self._pick(list(self._side.world.project_accounts.values()))
        state = self._dice.choice([s for s in ("OK", "Closed", "Erred") if s != account.state])
        self._side.set_project_account_state(account, state)
        return f"{account.username} is {state}"

    def _limit_user(self) -> str:
        resource, person = self._live("OK"), self._pick(self._named())
        amount = self._dice.randint(1, 5)
        self._side.set_user_limit(resource, person, "cpu", amount)
        return f"{person} may use {amount} cpu of {resource.slug}"

    def _free_user(self) -> str:
        limit = self._pick(list(self._side.world.user_limits.values()))
        user = self._side.world.offering_users[limit.account].user
        self._side.clear_user_limit(limit.resource, user, limit.component_type)
        return f"{self._side.world.users[user].username} has no limit any more"

    def _named(self) -> list[str]:
        users = self._side.world.offering_users.values()
        return [self._side.world.users[u.user].username for u in users if u.username]

    def _restrict_user(self) -> str:
        user = self._pick(list(self._side.world.offering_users.values()))
        self._side.edit(user, is_restricted=not user.is_restricted)
        return f"{user.username}: restricted {not user.is_restricted}"

    def _delete_user(self) -> str:
        users = self._side.world.offering_users.values()
        user = self._pick([u for u in users if u.state == "OK" and u.username])
        self._side.request_deletion(user.user)
        return f"{user.username} is to be deleted"

    # Jobs

    def _start_job(self) -> str:
        live = [r for r in self._world.resources if r.state != "Terminated"]
        pairs = [
            (account, user)
            for account in sorted({r.backend_id for r in live} - {""})
            if account in self._world.slurm.state.accounts
            for user in sorted(self._world.slurm.state.accounts[account].members)
        ]
        account, user = self._pick(pairs)
        tres = {"cpu": self._dice.choice((8, 64, 500)), "mem": self._dice.choice((4096, 999999))}
        if self._dice.random() < 0.3:
            tres["gres/gpu"] = self._dice.randint(1, 8)
        number = self._world.slurm.run_job(user, account, tres, self._world.time.now())
        self._world.owners[number] = next(
            r.uuid
            for r in self._world.resources
            if r.backend_id == account and r.state != "Terminated"
        )
        return f"job {number} of {user} begins in {account} with {tres}"

    def _end_job(self) -> str:
        number = self._pick(sorted(self._world.slurm.state.jobs))
        self._world.slurm.end_job(number)
        return f"job {number} ends"

    # Administrators

    def _account(self) -> Resource:
        accounts = self._world.slurm.state.accounts
        live = [r for r in self._world.resources if r.state != "Terminated"]
        return self._pick([r for r in live if r.backend_id in accounts])

    def _set_qos(self) -> str:
        resource = self._account()
        name = resource.backend_id
        account = self._world.slurm.state.accounts[name]
        known = self._world.site_qos.get(name, Qos())
        untouched = (account.qos, account.default_qos) == (known.names, known.default)
        if resource.paused or resource.downscaled or not untouched:
            raise NothingToDoError
        account.qos, account.default_qos = ["normal", "long"], self._dice.choice(("long", "normal"))
        self._world.site_qos[name] = Qos(list(account.qos), account.default_qos)
        return f"an administrator gives {name} the QOS {account.qos}, {account.default_qos}"

    def _set_limit(self) -> str:
        resource = self._account()
        if resource.state != "OK":
            raise NothingToDoError
        amount, limits = (
            self._dice.randint(1, 9),
            self._world.slurm.state.accounts[resource.backend_id].limits,
        )
        if self._world.sells_prepaid and self._dice.random() < 0.5:
            limits[PREPAID] = amount * PREPAID_FACTOR
            return f"an administrator limits {resource.backend_id} to {amount} {PREPAID}"
        limits["cpu"] = amount * 60000
        return f"an administrator limits {resource.backend_id} to {amount} cpu"

    def _put_stranger(self) -> str:
        resource = self._account()
        name = f"guest{len(self._world.strangers)}"
        account = self._world.slurm.state.accounts[resource.backend_id]
        account.members[name] = SimMembership()
        self._world.slurm.state.users[name] = SimUser(name, resource.backend_id)
        self._world.strangers.add((resource.backend_id, name))
        return f"an administrator puts {name} into {resource.backend_id}"

    def _hide_user(self) -> str:
        hidden = self._world.unknown_to_the_system
        name = self._world.username_of(self._pick(self._world.people))
        if name in hidden:
            hidden.remove(name)
            return f"the system knows {name}"
        in_use = any(name in a.members for a in self._world.slurm.state.accounts.values())
        if in_use:
            raise NothingToDoError
        hidden.add(name)
        return f"the system does not know {name}"
