"""Groups of commands, one of which runs where none is named."""

from __future__ import annotations

from typing import Any

import typer


class RunByDefault(typer.core.TyperGroup):
    """``merge CONFIG OUT``: what is not the name of a command is meant for the command ``run``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the word ``run`` where it was left out."""
        if args and args[0] not in {*self.commands, "-h", "--help"}:
            args = ["run", *args]
        return super().parse_args(ctx, args)
