"""A small invented medical world to run the whole toolkit on, offline and in minutes.

from biomistral.miniature import make_miniature
make_miniature(Path("runs/miniature-world"))
"""

from biomistral.miniature.making import make_miniature

__all__ = ["make_miniature"]
