"""Every promise of the transports, on a real RabbitMQ."""

from __future__ import annotations

import pytest

from integration.broker import WALDURS_ARGUMENTS, RealRabbitMQ

pytestmark = pytest.mark.rabbitmq


def test_queues_are_made_as_waldur_makes_them(real_rabbitmq: RealRabbitMQ) -> None:
    real_rabbitmq.register("v1", "l1", "p", {"q": WALDURS_ARGUMENTS})
    assert real_rabbitmq.waiting("v1") == {"q": (0, 0)}
    real_rabbitmq.delete_vhost("v1")
