"""What gateway and sandbox are checked against: each other, and Waldur's own API description.

What the tests need of the description stands in ``tests/data/api``; see ``extract_api``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from contract import extract_api
from waldur_site_agent.waldur import Waldur
from waldur_site_agent_sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class DescribedOperation:
    """One operation as the description has it."""

    method: str
    path: str
    parameters: dict[str, dict[str, Any]]
    """Query parameters: name -> schema, with references resolved."""
    body: dict[str, dict[str, Any]]
    """Keys of the JSON body: name -> schema."""
    required_body: frozenset[str]
    answer: dict[str, Any]
    """The schema of the successful JSON answer, or of each of its rows."""


class Description:
    """An OpenAPI document, asked by operation id. What it holds is as free as JSON: ``Any``."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document
        self._places = {
            operation["operationId"]: (method, path, operation)
            for path, methods in document["paths"].items()
            for method, operation in methods.items()
            if isinstance(operation, dict) and "operationId" in operation
        }

    def __contains__(self, operation_id: object) -> bool:
        return operation_id in self._places

    def operation(self, operation_id: str) -> DescribedOperation:
        method, path, described = self._places[operation_id]
        shared = self._document["paths"][path].get("parameters", [])
        parameters = map(self.resolve, described.get("parameters", []) + shared)
        content = self.resolve(described.get("requestBody", {})).get("content", {})
        body = self.resolve(content.get("application/json", {}).get("schema", {}))
        body = self.resolve(body.get("items", body))
        return DescribedOperation(
            method=method.upper(),
            path=path,
            parameters={
                p["name"]: self.resolve(p["schema"]) for p in parameters if p["in"] == "query"
            },
            body=body.get("properties", {}),
            required_body=frozenset(body.get("required", [])),
            answer=self._answer(described),
        )

    def choices(self, schema: dict[str, Any]) -> list[str]:
        """The values that a parameter may have, or each of several of it."""
        choices: list[str] = self.resolve(schema.get("items", schema)).get("enum", [])
        return choices

    def resolve(self, node: dict[str, Any]) -> dict[str, Any]:
        """Follow a reference to what it stands for."""
        while "$ref" in node:
            found: Any = self._document
            for step in node["$ref"].removeprefix("#/").split("/"):
                found = found[step]
            node = found
        return node

    def _answer(self, described: dict[str, Any]) -> dict[str, Any]:
        for status in ("200", "201"):
            response = self.resolve(described["responses"].get(status, {}))
            schema = response.get("content", {}).get("application/json", {}).get("schema")
            if schema:
                schema = self.resolve(schema)
                return self.resolve(schema.get("items", schema))
        return {}


@pytest.fixture(scope="session")
def description() -> Description:
    return Description(extract_api.load())


@pytest.fixture(params=["7.7.9", "8.0.2", "8.1.3"])
def sandbox(request: pytest.FixtureRequest) -> Sandbox:
    """An embedded Waldur of each generation, with the demo in it."""
    sandbox = Sandbox(request.param)
    sandbox.fill_demo()
    return sandbox


@pytest.fixture
def waldur(sandbox: Sandbox) -> Iterator[Waldur]:
    """The gateway to it, with the agent's token."""
    with sandbox.serve() as url, Waldur(url, sandbox.token) as waldur:
        yield waldur
