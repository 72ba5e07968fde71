"""Lets plugins of version 1 import ``waldur_site_agent.backend`` and ``waldur_site_agent.common``.

The agent has no modules of these names. They are found only after :func:`provide` was called, which
happens when a plugin of version 1 is loaded; ``waldur_site_agent.backend`` is then the same module
as ``waldur_site_agent_v1_plugins.interface.backend``.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType

_PREFIX = "waldur_site_agent."
_OURS = "waldur_site_agent_v1_plugins.interface."
_ROOTS = ("backend", "common")


def is_provided(module: str) -> bool:
    """Whether a module of version 1 is one that is stood in for here."""
    return module.startswith(_PREFIX) and module.split(".")[1] in _ROOTS


def provide() -> None:
    """Let the modules of version 1 be found from now on."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())  # before the finder that would load each file again


class _Finder(MetaPathFinder):
    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        del path, target
        if not is_provided(fullname):
            return None
        ours = _OURS + fullname.removeprefix(_PREFIX)
        found = find_spec(ours)
        if found is None:
            return None
        is_package = found.submodule_search_locations is not None
        return ModuleSpec(fullname, _AliasLoader(ours), is_package=is_package)


class _AliasLoader(Loader):
    def __init__(self, ours: str) -> None:
        self._ours = ours

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        del spec
        module = importlib.import_module(self._ours)
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec  # importing under the other name replaced it
