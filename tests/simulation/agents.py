"""Incarnations of the agent: polled or led by events, killed and started again."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from random import Random
from uuid import UUID

import structlog

from simulation.faults import FaultInjector
from simulation.world import FACTORS, PREPAID, PREPAID_FACTOR, World
from waldur_site_agent.backends import UsernameBackend
from waldur_site_agent.backends.backend_settings import BackendSettings
from waldur_site_agent.backends.usernames import NoUsernames
from waldur_site_agent.config import Job, Offering
from waldur_site_agent.cycles.membership import sync_membership
from waldur_site_agent.cycles.orders import process_orders
from waldur_site_agent.cycles.site import CycleReport, Site
from waldur_site_agent.cycles.usage import report_usage
from waldur_site_agent.events.broker import Delivery
from waldur_site_agent.events.pending import EventQueue
from waldur_site_agent.events.registration import object_types_of
from waldur_site_agent.model.backend import Everything
from waldur_site_agent.model.errors import SiteAgentError
from waldur_site_agent.model.marketplace import OfferingUser
from waldur_site_agent.planning.plan import Thresholds
from waldur_site_agent.service.session import EVENT_PROCESS, MEMBERSHIP_SYNC, ORDER_PROCESS, REPORT
from waldur_site_agent.service.worker import Passes, Session, check_token, run_cycle
from waldur_site_agent.waldur import Waldur
from waldur_site_agent.waldur.http import RetryPolicy
from waldur_site_agent_sandbox.server import ADDRESS
from waldur_site_agent_slurm.backend import SlurmBackend
from waldur_site_agent_slurm.client import PollTimeout
from waldur_site_agent_slurm.settings import SlurmSettings

TIGHT = 2
"""How many removals are too many where the site is careful."""
_HOUR = 3600.0
_COMPONENTS = {
    "cpu": {"measured_unit": "k-Hours", "accounting_type": "limit"},
    "mem": {"measured_unit": "GB-hours", "accounting_type": "limit"},
    "gres/gpu": {"measured_unit": "GPU-hours", "accounting_type": "usage"},
}
_SETTINGS = {
    "customer_prefix": "c_",
    "project_prefix": "p_",
    "allocation_prefix": "a_",
    "qos_downscaled": "limited",
    "qos_paused": "paused",
    "enable_user_homedir_account_creation": False,
    # a restored resource would else be billed for what others used under its name
    "check_backend_id_uniqueness": True,
}
_NODE = {"measured_unit": "node-hours", "accounting_type": "one"}
MODES = {"orders": ORDER_PROCESS, "membership": MEMBERSHIP_SYNC, "report": REPORT}


class Usernames(UsernameBackend):
    """Calls people at the site what they are called in Waldur, and a number."""

    def get_username(self, offering_user: OfferingUser) -> str | None:  # noqa: ARG002 - knows nobody
        return None

    def generate_username(self, offering_user: OfferingUser) -> str | None:
        return f"{offering_user.user_username}01"


def offering_of(world: World) -> Offering:
    """The configuration."""
    kinds = {name: {**kind, "unit_factor": FACTORS[name]} for name, kind in _COMPONENTS.items()}
    if world.sells_prepaid:
        kinds[PREPAID] = {**_NODE, "unit_factor": PREPAID_FACTOR}
    return Offering.model_validate(
        {
            "name": "Simulated cluster",
            "waldur_api_url": ADDRESS,
            "waldur_api_token": world.sandbox.token,
            "waldur_offering_uuid": world.sandbox.offering.uuid,
            "order_processing_backend": "slurm",
            "membership_sync_backend": "slurm",
            "reporting_backend": "slurm",
            "backend_settings": {
                **_SETTINGS,
                "periodic_limits": {"enabled": world.has_budgets},
                "soft_delete": world.soft_delete,
            },
            "backend_components": {name: {**kind, "label": name} for name, kind in kinds.items()},
        }
    )


@dataclass
class Broker:
    """The queue between Waldur and an agent that is led by events."""

    world: World
    waiting: list[Delivery] = field(default_factory=list)
    unacknowledged: list[Delivery] = field(default_factory=list)
    _read: int = 0

    def collect(self) -> None:
        """Take in what Waldur has told since the last time."""
        published = self.world.sandbox.events.published
        for event in published[self._read :]:
            body = json.dumps({**event.payload, "object_type": event.object_type}).encode()
            self.waiting.append(Delivery(body, "queue", {}, redelivered=False, ack=None))
        self._read = len(published)

    def disturb(self, rng: Random) -> str:
        """Lose, repeat or mix up what waits."""
        self.collect()
        kind = rng.choice(("loses", "repeats", "mixes up"))
        if kind == "loses":
            self.waiting = [d for d in self.waiting if rng.random() < 0.5]
        elif kind == "repeats":
            self.waiting += [d for d in self.waiting if rng.random() < 0.5]
        else:
            rng.shuffle(self.waiting)
        return f"the broker {kind} messages"

    def return_all(self) -> None:
        """A connection ended: what was not acknowledged comes again."""
        self.waiting = [*self.unacknowledged, *self.waiting]
        self.unacknowledged = []

    # What the event queue needs of a connection

    def receive(self, timeout_seconds: float) -> Delivery | None:  # noqa: ARG002 - not asked
        return None

    def acknowledge(self, delivery: Delivery) -> None:
        if delivery in self.unacknowledged:
            self.unacknowledged.remove(delivery)

    def close(self) -> None:
        return

    def heard_seconds_ago(self) -> float:
        return 0.0


class Agent:
    """One process of the agent, from its start to its end."""

    def __init__(self, world: World, injector: FaultInjector, broker: Broker | None) -> None:
        self.world = world
        self.injector = injector
        offering = offering_of(world)
        settings = SlurmSettings.model_validate(
            {**offering.backend_settings, "lock_file": world.lock_file}
        )
        time = world.time
        backend = SlurmBackend(
            settings,
            offering.components,
            runner=injector.runner(),
            user_exists=lambda name: name not in world.unknown_to_the_system,
            patience=PollTimeout(seconds=3, pause=1, sleep=time.sleep, clock=time.seconds),
            lock_wait_seconds=0,
            clock=time.seconds,
            now=time.seconds,
        )
        self._waldur = Waldur(
            ADDRESS,
            offering.token,
            mode="simulation",
            verify=False,
            transport=injector.transport(),
            retry=RetryPolicy(jitter=lambda ceiling: ceiling / 2),
            sleep=time.sleep,
            now=time.now,
        )
        self.site = Site(
            offering=offering,
            waldur=self._waldur,
            backend=backend,
            thresholds=self._thresholds(),
            log=structlog.get_logger(),
            now=time.now,
            sleep=time.sleep,
            usernames=(Usernames if world.names_by_agent else NoUsernames)(BackendSettings()),
            remove_unknown_users=world.removes_strangers,
        )
        self._started: set[str] = set()
        self._events = _Events(self, broker) if broker is not None else None

    def _thresholds(self) -> Thresholds:
        most = TIGHT if self.world.tight else 10
        return Thresholds(
            max_removals_percent=Decimal(30),
            max_removals=most,
            removals_allowed=self.world.removals_allowed,
        )

    def close(self) -> None:
        """End the process, gracefully or not."""
        self._waldur.close()

    def run(self, kind: str) -> list[CycleReport]:
        """One pass of a mode, or what events ask for now; the first after what a start does."""
        if not self._is_started(kind):
            return []
        if kind == "events":
            assert self._events is not None
            return self._events.run()
        return [run_cycle(self.site, MODES[kind])]

    def _is_started(self, kind: str) -> bool:
        mode = MODES["orders" if kind == "events" else kind]
        if mode.name in self._started:
            return True
        try:
            check_token(self.site, mode)
            mode.start(self.site)
        except SiteAgentError:  # it is tried again
            return False
        self._started.add(mode.name)
        return True

    def plan(self) -> None:
        """A dry run of everything; trouble is none of its business."""
        cycles: tuple[Callable[..., CycleReport], ...] = (
            process_orders,
            sync_membership,
            report_usage,
        )
        for cycle in cycles:
            cycle(self.site, dry_run=True)


class _Events:
    """What leads an agent in event mode: the event queue, and the passes that it asks for."""

    def __init__(self, agent: Agent, broker: Broker) -> None:
        self._broker = broker
        self._time = agent.world.time
        modes = {part.job: EVENT_PROCESS.renamed(part) for part in EVENT_PROCESS.parts}
        self._session = Session(dict.fromkeys((Job.ORDERS, Job.MEMBERSHIP), agent.site), modes)
        self.event_queue = EventQueue(
            UUID(agent.world.sandbox.offering.uuid),
            object_types_of(agent.site.offering),
            structlog.get_logger(),
            clock=self._time.seconds,
        )
        self._passes = Passes(self._session, self.event_queue)
        self.event_queue.want(Everything())
        self._next_full_pass = self._time.seconds() + _HOUR

    def run(self) -> list[CycleReport]:
        """Take messages in and make every pass that is due."""
        if self._time.seconds() >= self._next_full_pass:
            self.event_queue.want(Everything())
            self._next_full_pass = self._time.seconds() + _HOUR
        self._broker.collect()
        while self._broker.waiting:
            delivery = self._broker.waiting.pop(0)
            self._broker.unacknowledged.append(delivery)
            self.event_queue.receive(delivery, self._broker)
        while (batch := self.event_queue.take(0)) is not None:
            self._passes.carry_out(batch)
        return []
