"""The settings of a plugin: the base of its model."""

from __future__ import annotations

from typing import ClassVar

from waldur_site_agent.config.switching import OldDefault, OldKeys
from waldur_site_agent.model.settings import Section


class BackendSettings(Section):
    """Base of a plugin's ``backend_settings``: unknown keys are refused, values are frozen.

    The docstring below a field is its line in the generated reference and in the JSON Schema.
    """

    version_1: ClassVar[OldKeys] = {}
    """The keys of version 1 that a site may have in its file, and what became of each."""
    version_1_defaults: ClassVar[tuple[OldDefault, ...]] = ()
    """The defaults that were others in version 1 and change bills or access."""

    located_by: ClassVar[tuple[str, ...] | None] = None
    """The keys that tell which machine is meant; ``None``: only all keys together tell it."""

    def is_same_place_as(self, other: BackendSettings) -> bool:
        """Whether two offerings with these settings have their resources on the same machine.

        The usage of an account there is then one and the same, whichever of them reports it.
        """
        keys = type(self).model_fields if self.located_by is None else self.located_by
        return type(self) is type(other) and all(
            getattr(self, key) == getattr(other, key) for key in keys
        )
