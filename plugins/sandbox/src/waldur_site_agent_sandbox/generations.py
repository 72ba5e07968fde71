"""What a server of a given version can do: the differences that a client meets."""

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
"""Kinds of changes, and the release that told of them first."""


@lru_cache
def _number(version: str) -> tuple[int, ...]:
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in match.group().split(".")) if match else ()


@dataclass(frozen=True, slots=True)
class Generation:
    """A Waldur release and its habits. Where a change has no known release, the year decides.

    Releases up to 7.7 stand for 2024 and 2025, those from 8.0.7 for 2026.
    """

    version: str

    def __post_init__(self) -> None:
        """Refuse what is no version.

        Raises:
            ValueError: The text does not begin with numbers and dots.
        """
        if not self.number:
            message = f"{self.version!r} is no Waldur version; write it like 8.1.3"
            raise ValueError(message)

    @property
    def number(self) -> tuple[int, ...]:
        """The version as numbers that compare."""
        return _number(self.version)

    def reached(self, *release: int) -> bool:
        """Tell whether the server is of this release or a later one."""
        return self.number >= release

    @property
    def approve_answer(self) -> str:
        """How an approval is answered: ``empty``, ``text`` (bare JSON string) or ``detail``."""
        if self.reached(8, 0, 3):
            return "detail"
        return "text" if self.reached(7, 9, 0) else "empty"

    @property
    def marks_resource_when_ordered(self) -> bool:
        """A resource turns Updating or Terminating with the order, not by a task after approval."""
        return self.reached(8, 0, 0)

    @property
    def waits_for_start_date(self) -> bool:
        """An approved order with a start date to come waits in pending-start-date."""
        return self.reached(7, 9, 0)

    @property
    def errs_orders_in_any_state(self) -> bool:
        """Errors reported turn any order erred, and a create without backend_id Terminated."""
        return self.reached(8, 0, 7)

    @property
    def checks_limit_names(self) -> bool:
        """set_limits refuses types that the offering does not have."""
        return self.reached(8, 0, 7)

    @property
    def has_offering_user_states(self) -> bool:
        """Offering users have a state and calls that change it."""
        return self.reached(7, 7, 3)

    @property
    def username_completes_account(self) -> bool:
        """A new username makes the account OK in the same call."""
        return self.reached(8, 0, 7)

    @property
    def names_members_when_ordered(self) -> bool:
        """Offering users appear while the order is carried out; before: once it is done."""
        return self.reached(7, 6, 5)

    @property
    def lets_provider_set_errors(self) -> bool:
        """set_as_erred is open to the provider; before: to staff only."""
        return self.reached(7, 6, 5)

    @property
    def accepts_offering_scope(self) -> bool:
        """Part of the calls that needed a role on the customer take one on the offering."""
        return self.reached(8, 0, 7)

    @property
    def has_periodic_policies(self) -> bool:
        """Limits may be set by a policy of the offering, period by period."""
        return self.reached(7, 8, 8)

    @property
    def drops_limits_under_policy(self) -> bool:
        """set_limits leaves limit components alone, and says nothing, while there is a policy."""
        return self.reached(8, 0, 7)

    @property
    def takes_usage_dates(self) -> bool:
        """A report of usage may name its month; before: it is always the present one."""
        return self.reached(7, 9, 0)

    @property
    def raises_empty_totals(self) -> bool:
        """Parts of people raise a total of zero to their sum."""
        return self.reached(8, 0, 5)

    @property
    def keeps_current_usages(self) -> bool:
        """A resource shows the last figure of each component; before: those of the last report."""
        return self.reached(8, 0, 7)

    @property
    def event_types(self) -> tuple[str, ...]:
        """The kinds of changes that clients can be told of."""
        return tuple(name for name, since in _EVENT_TYPES.items() if self.reached(*since))

    @property
    def makes_queues(self) -> bool:
        """The server makes the queues; before: whoever sends or subscribes first."""
        return self.reached(7, 9, 9)

    @property
    def has_unified_queues(self) -> bool:
        """An agent has one queue for changes of every kind."""
        return self.reached(8, 1, 0)

    @property
    def publishes_over_mqtt(self) -> bool:
        """Changes are told over MQTT too."""
        return not self.makes_queues

    @property
    def tells_every_order_state(self) -> bool:
        """Orders are told of at each change of state; before: when they wait or are done."""
        return self.reached(8, 0, 7)

    @property
    def tells_roles_of_live_resources(self) -> bool:
        """Roles are told of where a resource is not terminated; before: where one is OK."""
        return self.reached(8, 0, 7)

    @property
    def project_account_states(self) -> dict[str, tuple[str, ...]]:
        """The states that a project's accounts can be in, by their kind."""
        usual = ("OK", "Closed", "Erred")
        return {"service": usual, "course": (*usual, "Pending") if self.reached(8, 0, 9) else usual}
