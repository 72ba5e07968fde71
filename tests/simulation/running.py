"""One simulation from its seed to its verdict."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from random import Random

from simulation.agents import Agent, Broker
from simulation.customers import People
from simulation.faults import FaultInjector, Hooks, KilledError
from simulation.invariants import Monitor, ViolationError, check_end
from simulation.logs import DefectFoundError, defects_in_log
from simulation.scenario import PASSES, Fault, Scenario, Step, scenario_of
from simulation.world import World
from waldur_site_agent.waldur.concurrency import one_at_a_time

_MINUTE = 60.0


@dataclass
class Result:
    """What became of a seed."""

    scenario: Scenario
    history: list[str] = field(default_factory=list)
    violation: ViolationError | None = None

    @property
    def failed(self) -> bool:
        return self.violation is not None


def simulate(seed: int, directory: Path, without: Collection[str] = ()) -> Result:
    """Run a seed, without some of its steps and faults."""
    scenario = scenario_of(seed).without(without)
    result = Result(scenario)
    with one_at_a_time(), defects_in_log():
        try:
            Simulation(scenario, directory, result.history.append).run()
        except ViolationError as violation:
            result.violation = violation
        except DefectFoundError as defect:
            result.violation = ViolationError(
                12, "a defect in the agent", expected="none", found=str(defect)
            )
    return result


class Simulation:
    """The world, its people and its agents, and what is watched."""

    def __init__(self, scenario: Scenario, directory: Path, record: Callable[[str], None]) -> None:
        self._scenario = scenario
        self._record = record
        self._world = World(scenario.seed, directory)
        self._monitor = Monitor(self._world)
        self._broker = Broker(self._world) if scenario.by_events else None
        self._agent = self._new_agent(self._broker)

    def _new_agent(self, broker: Broker | None) -> Agent:
        hooks = Hooks(
            customer_acts=self._customer_acts,
            another_agent=self._another_agent,
            request_ended=self._monitor.request_ended,
            command_began=self._monitor.command_began,
            command_ended=self._monitor.command_ended,
        )
        return Agent(self._world, FaultInjector(self._world, hooks, self._record), broker)

    def run(self) -> None:
        """All steps, then quiet."""
        try:
            for step in self._scenario.steps:
                self._step(step)
            self._quiet()
        finally:
            self._agent.close()

    def _step(self, step: Step) -> None:
        rng = Random(step.seed)
        people = People(self._world, rng)
        match step.kind:
            case "first orders":
                self._describe(step, people.first_orders())
            case "customers" | "sales" | "jobs" | "administrator":
                self._describe(step, getattr(people, step.kind)())
            case "time":
                minutes = rng.choice((1, 6, 31, 70, 400, 1500, 4000))
                if self._world.has_budgets and rng.random() < 0.4:
                    minutes = 45_000  # into the next month
                self._world.time.sleep(minutes * _MINUTE)
                self._describe(
                    step, f"{minutes} minutes pass, it is {self._world.time.now():%F %R}"
                )
            case "restart":
                self._describe(step, "the agent is started anew")
                self._restart()
            case "plan":
                self._describe(step, "somebody looks at the plan")
                self._plan()
            case "broker" if self._broker is not None:
                self._describe(step, self._broker.disturb(rng))
            case _:
                self._describe(step, f"the agent works: {step.kind}")
                self._pass(step.kind, step.faults)

    def _describe(self, step: Step, what: str) -> None:
        self._record(f"{step.number}. {what}")

    def _pass(self, kind: str, faults: Sequence[Fault] = ()) -> None:
        self._world.time.sleep(1)
        self._agent.injector.begin(faults)
        self._monitor.pass_began()
        try:
            self._agent.run(kind)
        except KilledError:
            self._restart()
        finally:
            self._world.sandbox.faults.clear()
        self._monitor.pass_ended()

    def _restart(self) -> None:
        self._agent.close()
        if self._broker is not None:
            self._broker.return_all()
        self._agent = self._new_agent(self._broker)

    def _plan(self) -> None:
        state = repr(self._world.slurm.state)
        world = self._world.sandbox.customer.world
        self._agent.injector.begin(())
        self._agent.plan()
        if repr(self._world.slurm.state) != state:
            raise ViolationError(13, "a plan changed the cluster", expected="nothing", found="")
        if self._world.sandbox.customer.world != world:
            raise ViolationError(13, "a plan changed Waldur", expected="nothing", found="")

    # Between two steps of the agent

    def _customer_acts(self, rng: Random) -> str:
        told = People(self._world, rng).customer()
        self._monitor.customer_acted()
        return told

    def _another_agent(self, rng: Random) -> str:
        kind = rng.choice(PASSES)
        other = self._new_agent(None)
        self._monitor.pass_began()
        try:
            other.run(kind)
        finally:
            other.close()
        self._monitor.pass_ended()
        return f"another agent works: {kind}"

    # The end

    def _quiet(self) -> None:
        self._record("from now on nothing goes wrong, and nobody does anything")
        self._world.unknown_to_the_system.clear()
        if self._agent.injector.forbidden or self._monitor.many_are_to_leave():
            self._world.removals_allowed = True
            self._restart()
        for minutes in (6, 180, 6, self._minutes_until_roles_have_ended(), 6):
            self._world.time.sleep(minutes * _MINUTE)
            self._round()
        check_end(self._world)
        if self._restrictions_lifted():
            for _ in range(2):
                self._world.time.sleep(6 * _MINUTE)
                self._round()
            check_end(self._world)
        self._writes_nothing_more()

    def _minutes_until_roles_have_ended(self) -> float:
        """No event tells of the end of a role; a full pass that sees it comes within an hour."""
        now = self._world.time.now()
        roles = self._world.sandbox.customer.world.roles.values()
        ends = [role.expiration_time for role in roles if role.expiration_time is not None]
        last = max([now, *(end for end in ends)])
        return (last - now).total_seconds() / 60 + 61

    def _restrictions_lifted(self) -> bool:
        """Let every account be as the site had it; return whether there was a restriction."""
        restricted = [r for r in self._world.resources if r.paused or r.downscaled]
        for resource in restricted:
            self._world.sandbox.customer.set_flags(resource, paused=False, downscaled=False)
        return bool(restricted)

    def _round(self) -> None:
        led = ("events", "report") if self._broker is not None else PASSES
        for kind in led:
            self._pass(kind)

    def _writes_nothing_more(self) -> None:
        self._world.sandbox.requests.clear()
        self._world.slurm.commands_run.clear()
        for kind in PASSES:
            self._agent.injector.begin(())
            self._agent.run(kind)
        requests = [
            f"{r.method} {r.path} {r.body}"
            for r in self._world.sandbox.requests.writes()
            if r.status != HTTPStatus.BAD_REQUEST or "approve" not in r.path  # a project has ended
        ]
        commands = self._world.slurm.commands_run["sacctmgr write"]
        if requests or commands:
            what = "a cycle without news writes"
            found = (requests, commands, self._world.slurm.history[-5:])
            raise ViolationError(4, what, expected="nothing", found=found)
