"""The recipe: one YAML file that names artefacts and says how each is made.

``load_recipe`` reads and checks one; ``settings`` has what may be written in it; ``links`` how its
names hang together; ``explain`` prints it with the meaning of each field.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from biomistral.recipe.loading import load_recipe, parse_recipe
    from biomistral.recipe.settings import Recipe

__all__ = ["Recipe", "load_recipe", "parse_recipe"]


def __getattr__(name: str) -> Any:
    """Import the three when they are asked for: who only reads YAML need not wait for them."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from biomistral.recipe import loading

    return getattr(loading, name)
