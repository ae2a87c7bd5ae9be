"""The command line: a thin door to the rooms. Light to import: rooms are loaded by what runs."""

from biomistral.cli.app import main

__all__ = ["main"]
