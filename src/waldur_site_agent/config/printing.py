"""The configuration as it is understood, for people: defaults filled in, secrets masked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from waldur_site_agent.config.settings import Configuration

_MASK = "********"
_SECRET_WORDS = ("token", "password", "passwd", "secret", "dsn", "credential", "private_key")


def resolved_yaml(configuration: Configuration) -> str:
    """The resolved configuration as YAML; anything that may be a secret is masked."""
    values = configuration.model_dump(mode="json")
    return yaml.safe_dump(_masked(values), sort_keys=False, allow_unicode=True)


def _masked(value: Any, name: str = "") -> Any:
    if isinstance(value, dict):
        return {key: _masked(inner, str(key)) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_masked(inner, name) for inner in value]
    secret = any(word in name.lower() for word in _SECRET_WORDS) and not name.endswith("_file")
    return _MASK if secret and value else value
