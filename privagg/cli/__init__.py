"""The command line: one verb a function; what is heavy is imported by the verb that needs it."""

from privagg.cli.app import main

__all__ = ["main"]
