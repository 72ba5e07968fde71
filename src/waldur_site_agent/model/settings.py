"""What all sections of the configuration have in common, those of plugins too."""

from __future__ import annotations

import ast
import inspect
import itertools
import textwrap
from typing import Any

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler


class Section(BaseModel):
    """A mapping of the file: unknown keys are refused, values do not change after loading.

    The docstring below a field is its line in the generated reference and in the JSON Schema.
    Pydantic could read them by itself, but does so at every start of the agent.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, str_strip_whitespace=True, hide_input_in_errors=True
    )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: Any, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Describe the fields by their docstrings."""
        schema = handler(core_schema)
        properties = handler.resolve_ref_schema(schema).get("properties", {})
        for base in cls.__mro__:
            if issubclass(base, Section):
                for name, text in _attribute_docstrings(base).items():
                    if name in properties:
                        properties[name].setdefault("description", text)
        return schema


def _attribute_docstrings(model: type[BaseModel]) -> dict[str, str]:
    parsed = ast.parse(textwrap.dedent(inspect.getsource(model)))
    definitions = (part for part in parsed.body if isinstance(part, ast.ClassDef))
    statements = (statement for definition in definitions for statement in definition.body)
    found = {}
    for attribute, below in itertools.pairwise(statements):
        match attribute, below:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                found[name] = inspect.cleandoc(text)
    return found
