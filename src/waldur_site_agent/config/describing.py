"""Describes the configuration from its models, and prints it with secrets masked.

The JSON Schema (``config schema``) and the reference page (``config reference``) are generated.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import unquote

import yaml
from pydantic import BaseModel

from waldur_site_agent.config.settings import (
    Budgets,
    ComponentSettings,
    Configuration,
    Events,
    LogShipping,
    Offering,
    Safety,
)

Schema = dict[str, Any]
"""A JSON Schema, or a part of one."""

_SECTIONS: tuple[tuple[str, type[BaseModel]], ...] = (
    ("The file", Configuration),
    ("safety", Safety),
    ("events", Events),
    ("log_shipping", LogShipping),
    ("An entry of offerings", Offering),
    ("budgets of an offering", Budgets),
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
    """A JSON Schema of the whole file, including ``backend_settings`` of installed plugins.

    The schema accepts the settings of any plugin, regardless of which one an offering uses.
    ``config check`` is stricter.
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
        # a Decimal is also accepted as text, which nobody uses
        return "number" if set(chosen) == {"number", "text"} else " or ".join(chosen)
    if "enum" in described:
        return ", ".join(f"`{value}`" for value in described["enum"])
    if "const" in described:
        return f"`{described['const']}`"
    kind = str(described.get("type", "any"))
    names = {"string": "text", "boolean": "`true` or `false`", "object": "mapping", "array": "list"}
    return names.get(kind, kind)


MASK = "********"
_WORDS = (
    "token",
    "webhook",
    "passw",
    "passphrase",
    "pwd",
    "secret",
    "dsn",
    "credential",
    "private_key",
    "access_key",
    "api_key",
    "apikey",
)
_USER_IN_URL = re.compile(r"(?<=://).*@", re.DOTALL)
_QUERY_OF_URL = re.compile(r"(?<=\?).+", re.DOTALL)


def sounds_secret(names: Iterable[str]) -> bool:
    """Whether any key of the path to a value indicates that the value is a secret.

    A key that ends in ``_file`` holds a file name, and one that ends in ``_url`` an address; both
    may be shown.
    """
    return any(_is_secret(name.lower().replace("-", "_")) for name in names)


def without_secrets(text: str) -> str:
    """The text with user, password and query of a URL masked; other text unchanged."""
    if "://" not in text:
        return text
    return _QUERY_OF_URL.sub(MASK, _USER_IN_URL.sub(f"{MASK}@", text))


def masked(value: Any, name: str = "") -> Any:
    """The value of a key with possible secrets masked."""
    if value and sounds_secret([name]):
        return MASK
    if isinstance(value, dict):
        return {key: masked(inner, str(key)) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return _masked_words(value)
    if not isinstance(value, str):
        return value
    return without_secrets(_OPTION.sub(_masked_option, value))


_NAMED_VALUE = re.compile(r"(-*([A-Za-z_][\w.-]*)\s*[=:]\s*)(.+)", re.DOTALL)
"""A word of a command with a value: ``--password=VALUE``, ``PASSWORD=VALUE``, ``Header: VALUE``."""
_OPTION = re.compile(r"""(?<!\S)(--?([A-Za-z][\w.-]*)(?:=|\s+))("[^"]*"|'[^']*'|\S+)""")
"""An option and its value in a command that is one text."""


def _masked_option(match: re.Match[str]) -> str:
    return match[1] + MASK if _is_secret_option(match[2]) else match[0]


def _masked_words(words: Iterable[Any]) -> list[Any]:
    """The words of a command, or another list, with the values of secret options masked."""
    shown: list[Any] = []
    for word, secret in _with_secrets(words):
        kept = word.removesuffix(secret) if secret else ""
        shown.append(kept + MASK if secret else masked(word))
    return shown


def _with_secrets(words: Iterable[Any]) -> Iterator[tuple[Any, str]]:
    """Each word, with the secret that it ends in or is; empty if it holds none."""
    is_value = False
    for word in words:
        if not isinstance(word, str):
            is_value = False
            yield word, ""
            continue
        named = _NAMED_VALUE.fullmatch(word)
        if is_value:
            yield word, word
        elif named is not None and _is_secret_option(named[2]):
            yield word, named[3]
        else:
            yield word, ""
        is_option = word.startswith("-") and named is None
        is_value = not is_value and is_option and _is_secret_option(word.lstrip("-"))


def _is_secret_option(name: str) -> bool:
    return name.lower() == "authorization" or sounds_secret([f"_{name}"])


def secrets_in(value: Any, name: str = "") -> Iterator[str]:
    """All texts in a configuration whose key indicates a secret."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from secrets_in(inner, name if sounds_secret([name]) else str(key))
    elif isinstance(value, list | tuple):
        for inner, secret in _with_secrets(value):
            yield from secrets_in(inner, name)
            if secret:
                yield secret
    elif isinstance(value, str) and value and sounds_secret([name]):
        yield value


def passwords_in(urls: Iterable[str]) -> Iterator[str]:
    """The passwords in URLs of proxies and databases, as they are written and as they are sent."""
    for url in urls:
        credentials, at, _ = url.rpartition("@")
        password = credentials.rpartition("://")[2].partition(":")[2]
        if at and password:
            yield from dict.fromkeys((password, unquote(password)))


def _is_secret(name: str) -> bool:
    # only as a suffix, as in "db_pass", because of "full_pass_minutes"
    return name.endswith("_pass") or (
        not name.endswith(("_file", "_url")) and any(word in name for word in _WORDS)
    )


def resolved_yaml(
    configuration: Configuration, backend_settings: Mapping[str, Mapping[str, Any]] | None = None
) -> str:
    """The resolved configuration as YAML, with possible secrets masked.

    Args:
        configuration: the configuration.
        backend_settings: by offering name, settings resolved by the plugin; other offerings show
            the settings of the file.
    """
    values = configuration.model_dump(mode="json")
    for key in ("global_proxy", "coordination"):
        if url := getattr(configuration, key).get_secret_value():
            values[key] = without_secrets(url)
    for offering in values["offerings"]:
        offering["backend_settings"] = (backend_settings or {}).get(
            offering["name"], offering["backend_settings"]
        )
    return yaml.safe_dump(masked(values), sort_keys=False, allow_unicode=True)
