"""The command line, `parley`. One command a file; `main` is the entry point.

Exit codes, for scripts: 0 done, 1 failed, 2 used wrongly. What a person reads goes to standard error where standard output is data
(`--json`). The only place of the package that reaches into `bench`.
"""

from gateway.cli.main import main

__all__ = ["main"]
