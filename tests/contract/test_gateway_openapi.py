"""Every operation that the gateway declares is one that Waldur's API description has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from waldur_site_agent.waldur.api import OPERATIONS
from waldur_site_agent.waldur.operation import Operation

if TYPE_CHECKING:
    from contract.conftest import Description


every_operation = pytest.mark.parametrize(
    "operation", OPERATIONS, ids=lambda operation: operation.purpose.replace(" {uuid}", "")
)


@every_operation
def test_the_operation_is_there_with_this_method_and_path(
    operation: Operation[object], description: Description
) -> None:
    assert operation.id in description
    described = description.operation(operation.id)
    path = described.path.replace("{service_provider_uuid}", "{uuid}")
    assert (described.method, path) == (operation.method, f"/api/{operation.path}")


@every_operation
def test_every_query_parameter_is_known(
    operation: Operation[object], description: Description
) -> None:
    assert {*operation.query} <= {*description.operation(operation.id).parameters}


@every_operation
def test_every_body_key_is_known_and_none_that_is_required_is_missing(
    operation: Operation[object], description: Description
) -> None:
    described = description.operation(operation.id)
    sent = {*(operation.body or ())}
    assert sent <= {*described.body}
    assert described.required_body <= sent


@every_operation
def test_every_field_asked_for_is_on_offer(
    operation: Operation[object], description: Description
) -> None:
    parameters = description.operation(operation.id).parameters
    offered = description.choices(parameters["field"]) if "field" in parameters else []
    assert {*operation.asked_fields} <= {*offered}


@every_operation
def test_every_order_asked_for_is_on_offer(
    operation: Operation[object], description: Description
) -> None:
    parameters = description.operation(operation.id).parameters
    offered = description.choices(parameters["o"]) if "o" in parameters else []
    asked = {order for order in operation.orders if order is not None}
    assert asked <= {*offered}
    assert bool(asked) is ("o" in operation.query)


@every_operation
def test_lists_in_pages_are_asked_for_by_page_and_others_are_not(
    operation: Operation[object], description: Description
) -> None:
    described = description.operation(operation.id)
    if operation.method == "GET":  # that of logs describes the list for its POST, too
        assert ("page_size" in described.parameters) is ("page_size" in operation.query)


@every_operation
def test_every_field_of_the_model_is_in_the_answer(
    operation: Operation[object], description: Description
) -> None:
    answer = description.operation(operation.id).answer
    assert {*operation.answer_fields} <= {*answer.get("properties", {})}


def test_reading_is_always_safe_to_repeat_and_moving_something_never() -> None:
    assert all(operation.safe_to_repeat for operation in OPERATIONS if not operation.is_write)
    moved = ("marketplace_orders", "marketplace_offering_users")
    moves = [
        "approve",
        "reject",
        "set_state",
        "begin",
        "set_ok",
        "_pending",
        "_complete",
        "_error",
        "_delet",
    ]
    assert not any(
        operation.safe_to_repeat
        for operation in OPERATIONS
        if operation.id.startswith(moved) and any(m in operation.id for m in moves)
    )
