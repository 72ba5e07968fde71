"""The configuration file described by its own models: for editors, and as a page to read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from waldur_site_agent.config.settings import (
    ComponentSettings,
    Configuration,
    Events,
    Offering,
    Safety,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pydantic import BaseModel

    Schema = dict[str, Any]
    """A JSON Schema, or a part of one."""

_SECTIONS: tuple[tuple[str, type[BaseModel]], ...] = (
    ("The file", Configuration),
    ("safety", Safety),
    ("events", Events),
    ("An entry of offerings", Offering),
    ("An entry of backend_components", ComponentSettings),
)
_INTRODUCTION = """\
# Every key

Made from the models of the agent by `waldur-site-agent config reference`; not edited by hand. What
the keys are for, with examples, is in [configure.md](configure.md). The same as a JSON Schema, for
editors that complete and check YAML: `waldur-site-agent config schema`.
"""
_OFFERING_KEYS_OF_PLUGINS = {
    "backend_settings": "the settings of one of the installed backends",
    "username_management_settings": "the settings of one of the installed username backends",
}


def json_schema(
    backends: Mapping[str, type[BaseModel]], username_backends: Mapping[str, type[BaseModel]]
) -> Schema:
    """A JSON Schema of the whole file, ``backend_settings`` of the installed plugins included.

    Which plugin an offering uses is not told apart: settings that any of them takes are accepted.
    The agent itself is stricter (``config check``).
    """
    schema = Configuration.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "Configuration of waldur-site-agent"
    offering = schema["$defs"]["Offering"]["properties"]
    offering["waldur_offering_uuid"].pop("format", None)  # UUIDs without dashes are fine, too
    for key, models in (
        ("backend_settings", backends),
        ("username_management_settings", username_backends),
    ):
        choices = [_of_plugin(schema, name, model) for name, model in sorted(models.items())]
        described = {"description": _OFFERING_KEYS_OF_PLUGINS[key], "default": {}}
        offering[key] = {**described, "anyOf": [*choices, {"type": "null"}]}
    return schema


def _of_plugin(schema: Schema, name: str, model: type[BaseModel]) -> Schema:
    own = model.model_json_schema()
    schema["$defs"].update(own.pop("$defs", {}))
    return {**own, "title": f'settings of "{name}"'}


def reference_page(
    backends: Mapping[str, type[BaseModel]], username_backends: Mapping[str, type[BaseModel]]
) -> str:
    """Every key with its type, default and meaning, as a page in Markdown."""
    sections = [
        *_SECTIONS,
        *((f"backend_settings of {name}", model) for name, model in sorted(backends.items())),
        *(
            (f"username_management_settings of {name}", model)
            for name, model in sorted(username_backends.items())
        ),
    ]
    tables = [
        f"\n## {title}\n\n" + "\n".join(_table(model))
        for title, model in sections
        if model.model_fields
    ]
    return _INTRODUCTION + "\n".join(tables) + "\n"


def _table(model: type[BaseModel]) -> Iterator[str]:
    schema = model.model_json_schema()
    definitions = schema.get("$defs", {})
    yield "| key | type | default | meaning |"
    yield "|---|---|---|---|"
    for key, described in schema["properties"].items():
        required = key in schema.get("required", ())
        default = "required" if required else _default(described)
        meaning = _as_markdown(described.get("description", ""))
        yield f"| `{key}` | {_type(described, definitions)} | {default} | {meaning} |"


def _default(described: Schema) -> str:
    default = described.get("default")
    if default in (None, "", {}, []) or isinstance(default, dict):
        return ""
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def _as_markdown(text: str) -> str:
    return " ".join(text.replace("``", "`").split()).replace("|", "\\|")


def _type(described: Schema, definitions: Mapping[str, Schema]) -> str:
    if "$ref" in described:
        return _type(definitions[described["$ref"].rpartition("/")[2]], definitions)
    if "anyOf" in described:
        kinds = [_type(choice, definitions) for choice in described["anyOf"]]
        chosen = [kind for kind in dict.fromkeys(kinds) if kind != "null"]
        # a Decimal is accepted as text, too; nobody writes it so
        return "number" if set(chosen) == {"number", "text"} else " or ".join(chosen)
    if "enum" in described:
        return ", ".join(f"`{value}`" for value in described["enum"])
    if "const" in described:
        return f"`{described['const']}`"
    kind = str(described.get("type", "any"))
    names = {"string": "text", "boolean": "`true` or `false`", "object": "mapping", "array": "list"}
    return names.get(kind, kind)
