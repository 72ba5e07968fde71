"""Extracts what the contract tests need from Waldur's API description.

``PYTHONPATH=tests python -m contract.extract_api waldur-openapi.yaml`` rewrites ``tests/data/api``:
the operations that gateway or sandbox use and the schemas that these refer to, with paths, methods,
parameters, field names, types and choices, and without any prose. One line an operation or schema,
so that a newer description shows as a readable diff.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import yaml

from waldur_site_agent.waldur.api import OPERATIONS as ASKED
from waldur_site_agent_sandbox.server import OPERATIONS as SERVED

DIRECTORY = Path(__file__).resolve().parents[1] / "data" / "api"
FILES = ("paths", "schemas", "parameters")

_KEPT_OF_SCHEMAS = ("$ref", "type", "format", "enum", "required", "nullable")
_COMBINED = ("allOf", "oneOf", "anyOf")


def used_operations() -> set[str]:
    """The ids of the operations that gateway or sandbox know."""
    return {str(operation.id) for operation in ASKED} | {str(served.name) for served in SERVED}


def extracted(document: dict[str, Any], used: set[str]) -> dict[str, Any]:
    """A smaller document of the same form: only these operations and what they refer to."""
    paths: dict[str, Any] = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if isinstance(operation, dict) and operation.get("operationId") in used:
                shared = methods.get("parameters", [])
                paths.setdefault(path, {})[method] = _operation(operation, shared)
    components: dict[str, dict[str, Any]] = {"schemas": {}, "parameters": {}}
    waiting = sorted(_references(paths))
    while waiting:
        _, _, kind, name = waiting.pop().split("/")
        if name in components[kind]:
            continue
        whole = document["components"][kind][name]
        kept = _schema(whole) if kind == "schemas" else _parameter(whole)
        components[kind][name] = kept
        waiting.extend(_references(kept))
    return {"paths": paths, "components": components}


def load(directory: Path = DIRECTORY) -> dict[str, Any]:
    """Read what was extracted, in the form of an OpenAPI document."""
    paths, schemas, parameters = (
        json.loads((directory / f"{name}.json").read_text()) for name in FILES
    )
    return {"paths": paths, "components": {"schemas": schemas, "parameters": parameters}}


def write(document: dict[str, Any], directory: Path = DIRECTORY) -> None:
    """Store an extracted document, one line an entry."""
    for name, content in zip(
        FILES, (document["paths"], *document["components"].values()), strict=True
    ):
        lines = (
            f"{json.dumps(key)}: {json.dumps(content[key], sort_keys=True)}"
            for key in sorted(content)
        )
        (directory / f"{name}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


def _operation(operation: dict[str, Any], shared: list[Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {
        "operationId": operation["operationId"],
        "parameters": [_parameter(one) for one in operation.get("parameters", []) + shared],
        "responses": {
            status: _content(response)
            for status, response in operation["responses"].items()
            if status.startswith("2")
        },
    }
    if "requestBody" in operation:
        kept["requestBody"] = _content(operation["requestBody"])
    return kept


def _parameter(parameter: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in parameter:
        return {"$ref": parameter["$ref"]}
    return {
        "name": parameter["name"],
        "in": parameter["in"],
        "schema": _schema(parameter["schema"]),
    }


def _content(holder: dict[str, Any]) -> dict[str, Any]:
    schema = holder.get("content", {}).get("application/json", {}).get("schema")
    return {"content": {"application/json": {"schema": _schema(schema)}}} if schema else {}


def _schema(schema: dict[str, Any]) -> dict[str, Any]:
    kept = {key: schema[key] for key in _KEPT_OF_SCHEMAS if key in schema}
    for key in _COMBINED:
        if key in schema:
            kept[key] = [_schema(choice) for choice in schema[key]]
    if "items" in schema:
        kept["items"] = _schema(schema["items"])
    if "properties" in schema:
        kept["properties"] = {name: _schema(one) for name, one in schema["properties"].items()}
    return kept


def _references(node: object) -> list[str]:
    if isinstance(node, dict):
        here = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return here + [found for value in node.values() for found in _references(value)]
    if isinstance(node, list):
        return [found for value in node for found in _references(value)]
    return []


def main() -> None:
    """Extract from the file that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("description", type=Path, help="Waldur's API description, YAML or JSON.")
    file: Path = parser.parse_args().description
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    whole = yaml.load(file.read_text(), Loader=loader)  # noqa: S506 - both loaders are safe
    write(extracted(whole, used_operations()))


if __name__ == "__main__":
    main()
