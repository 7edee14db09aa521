"""How is all of this used from a shell? One verb a function.

What is heavy is imported by the verb that needs it, so that `--help` answers at once. Read `app`
first: it names every verb and its module, and turns the project's errors into exit codes.
"""

from privagg.cli.app import main

__all__ = ["main"]
