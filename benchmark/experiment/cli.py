"""How a stage ends badly: one line on stderr for what the user can mend, a traceback for what is our fault."""

from __future__ import annotations

import sys
from collections.abc import Callable


def run_cli(main: Callable[[], None], *expected: type[Exception]) -> None:
    """Run ``main``; an ``expected`` error becomes ``error: ...`` and exit code 1."""
    try:
        main()
    except expected as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted; a training goes on from its last checkpoint when started again", file=sys.stderr)
        sys.exit(130)
