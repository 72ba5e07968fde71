"""Differences between Waldur releases that clients notice."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

_EVENT_TYPES: dict[str, tuple[int, ...]] = {
    "order": (),
    "user_role": (),
    "resource": (7, 6, 5),
    "offering_user": (7, 6, 5),
    "importable_resources": (7, 6, 5),
    "service_account": (7, 6, 5),
    "course_account": (7, 6, 5),
    "resource_periodic_limits": (7, 9, 0),
    "offering_resources_sync": (8, 0, 9),
    "resource_api_key_rotation": (8, 1, 0),
    "resource_end_date_change_request": (8, 1, 0),
    "user_profile": (8, 1, 0),
    "user_ssh_key": (8, 1, 0),
    "user_lifecycle": (8, 1, 0),
}
"""Kinds of events, and the first release that sends them."""


@lru_cache
def _number(version: str) -> tuple[int, ...]:
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in match.group().split(".")) if match else ()


@dataclass(frozen=True, slots=True)
class Generation:
    """A Waldur release and its behaviour. If the release of a change is unknown, its year decides.

    Releases up to 7.7 stand for 2024 and 2025, those from 8.0.7 for 2026.
    """

    version: str

    def __post_init__(self) -> None:
        """Check the version.

        Raises:
            ValueError: The text does not start with a version number.
        """
        if not self.number:
            message = f"{self.version!r} is not a Waldur version; write it like 8.1.3"
            raise ValueError(message)

    @property
    def number(self) -> tuple[int, ...]:
        """The version as a tuple, for comparison."""
        return _number(self.version)

    def reached(self, *release: int) -> bool:
        """Return whether the server has this release or a later one."""
        return self.number >= release

    @property
    def approve_answer(self) -> str:
        """How an approval is answered: ``empty``, ``text`` (bare JSON string) or ``detail``."""
        if self.reached(8, 0, 3):
            return "detail"
        return "text" if self.reached(7, 9, 0) else "empty"

    @property
    def marks_resource_when_ordered(self) -> bool:
        """A resource is Updating or Terminating from the order on, not only after a later task."""
        return self.reached(8, 0, 0)

    @property
    def waits_for_start_date(self) -> bool:
        """An approved order with a future start date waits in pending-start-date."""
        return self.reached(7, 9, 0)

    @property
    def errs_orders_in_any_state(self) -> bool:
        """Reported errors set any order to erred, and a create without backend_id to Terminated."""
        return self.reached(8, 0, 7)

    @property
    def checks_limit_names(self) -> bool:
        """set_limits refuses types that the offering does not have."""
        return self.reached(8, 0, 7)

    @property
    def has_offering_user_states(self) -> bool:
        """Offering users have a state, and there are calls to change it."""
        return self.reached(7, 7, 3)

    @property
    def username_completes_account(self) -> bool:
        """A new username makes the account OK in the same call."""
        return self.reached(8, 0, 7)

    @property
    def names_members_when_ordered(self) -> bool:
        """Offering users are created while the order is executing; before: once it is done."""
        return self.reached(7, 6, 5)

    @property
    def lets_provider_set_errors(self) -> bool:
        """set_as_erred is open to the provider; before: to staff only."""
        return self.reached(7, 6, 5)

    @property
    def accepts_offering_scope(self) -> bool:
        """Some calls that needed a role on the customer accept one on the offering."""
        return self.reached(8, 0, 7)

    @property
    def has_periodic_policies(self) -> bool:
        """Limits may be set by a policy of the offering, period by period."""
        return self.reached(7, 8, 8)

    @property
    def drops_limits_under_policy(self) -> bool:
        """set_limits silently ignores limit components while there is a policy."""
        return self.reached(8, 0, 7)

    @property
    def takes_usage_dates(self) -> bool:
        """Usage can be reported for a given month; before: only for the current one."""
        return self.reached(7, 9, 0)

    @property
    def raises_empty_totals(self) -> bool:
        """Usage of users raises a total of zero to their sum."""
        return self.reached(8, 0, 5)

    @property
    def keeps_current_usages(self) -> bool:
        """A resource shows the latest usage of each component; before: only the last report."""
        return self.reached(8, 0, 7)

    @property
    def counts_prepaid(self) -> bool:
        """Usage of prepaid components can be reported."""
        return self.reached(8, 1, 0)

    @property
    def event_types(self) -> tuple[str, ...]:
        """The kinds of events that clients can subscribe to."""
        return tuple(name for name, since in _EVENT_TYPES.items() if self.reached(*since))

    @property
    def makes_queues(self) -> bool:
        """The server creates the queues; before: whoever sends or subscribes first."""
        return self.reached(7, 9, 9)

    @property
    def has_unified_queues(self) -> bool:
        """An agent has one queue for all kinds of events."""
        return self.reached(8, 1, 0)

    @property
    def publishes_over_mqtt(self) -> bool:
        """Events are also sent over MQTT."""
        return not self.makes_queues

    @property
    def tells_every_order_state(self) -> bool:
        """Each change of an order's state is an event; before: only pending and done."""
        return self.reached(8, 0, 7)

    @property
    def tells_roles_of_live_resources(self) -> bool:
        """Roles are sent if a resource is not terminated; before: only if one is OK."""
        return self.reached(8, 0, 7)

    @property
    def project_account_states(self) -> dict[str, tuple[str, ...]]:
        """The possible states of a project's accounts, by kind."""
        usual = ("OK", "Closed", "Erred")
        return {"service": usual, "course": (*usual, "Pending") if self.reached(8, 0, 9) else usual}
