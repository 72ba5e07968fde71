"""The stored part of Waldur's API description holds what is used, and nothing besides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from contract import extract_api

DOCUMENT: dict[str, Any] = {
    "info": {"title": "Waldur API"},
    "paths": {
        "/api/orders/": {
            "get": {
                "operationId": "orders_list",
                "description": "Prose.",
                "parameters": [
                    {"$ref": "#/components/parameters/Page"},
                    {
                        "in": "query",
                        "name": "state",
                        "description": "Prose.",
                        "schema": {"type": "string", "enum": ["done"], "default": "done"},
                    },
                ],
                "responses": {
                    "200": {
                        "description": "Prose.",
                        "content": {
                            "application/json": {
                                "schema": {
                                    "type": "array",
                                    "items": {"$ref": "#/components/schemas/Order"},
                                }
                            }
                        },
                    },
                    "404": {"description": "Prose."},
                },
            },
            "post": {"operationId": "orders_create", "responses": {}},
        },
    },
    "components": {
        "parameters": {"Page": {"in": "query", "name": "page", "schema": {"type": "integer"}}},
        "schemas": {
            "Order": {
                "type": "object",
                "description": "Prose.",
                "required": ["state"],
                "properties": {
                    "state": {"allOf": [{"$ref": "#/components/schemas/State"}]},
                    "description": {"type": "string", "readOnly": True, "nullable": True},
                },
            },
            "State": {"type": "string", "enum": ["done", "erred"]},
            "Unused": {"type": "string"},
        },
    },
}


def test_the_operations_used_and_what_they_refer_to_are_kept_without_prose(tmp_path: Path) -> None:
    extract_api.write(extract_api.extracted(DOCUMENT, {"orders_list"}), tmp_path)
    kept = extract_api.load(tmp_path)
    (operation,) = kept["paths"]["/api/orders/"].values()
    assert [p.get("name", p.get("$ref")) for p in operation["parameters"]] == [
        "#/components/parameters/Page",
        "state",
    ]
    assert operation["parameters"][1]["schema"] == {"type": "string", "enum": ["done"]}
    assert set(operation["responses"]) == {"200"}
    assert kept["components"]["schemas"] == {
        "Order": {
            "type": "object",
            "required": ["state"],
            "properties": {
                "state": {"allOf": [{"$ref": "#/components/schemas/State"}]},
                "description": {"type": "string", "nullable": True},
            },
        },
        "State": {"type": "string", "enum": ["done", "erred"]},
    }
    assert "Prose" not in str(kept)


def test_the_stored_part_holds_no_operation_or_schema_that_is_not_used() -> None:
    stored = extract_api.load()
    assert stored == extract_api.extracted(stored, extract_api.used_operations())
