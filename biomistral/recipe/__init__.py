"""The recipe: one YAML file that names artefacts and says how each is made.

``load_recipe`` reads and checks one; ``settings`` has what may be written in it; ``links`` how its
names hang together; ``explain`` prints it with the meaning of each field.
"""

from biomistral.recipe.loading import load_recipe, parse_recipe
from biomistral.recipe.settings import Recipe

__all__ = ["Recipe", "load_recipe", "parse_recipe"]
