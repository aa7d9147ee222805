"""One kind of error for everything a user can mend, and one place that prints it."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Sequence


class UserError(ValueError):
    """A mistake in the input: the message is one sentence naming the file, line or flag."""


NOT_FINITE = (
    "not finite numbers, which predict nothing: the weights are damaged, or training diverged and "
    "needs a lower --learning_rate"
)
"""The end of a sentence about logits or scores."""


class Terminated(KeyboardInterrupt):
    """The process was asked to end by SIGTERM."""


def run_command(main: Callable[[Sequence[str] | None], object]) -> None:
    """Run ``main(None)`` as a command line program.

    A :class:`UserError` becomes one line on stderr and exit status 2, and so does a file that the
    system refuses; Ctrl-C becomes exit status 130 (128 + SIGINT, as a shell reports it). Anything
    else is a bug and keeps its traceback. Lines are printed at once, into a file or pipe too: a log
    that is followed shows progress.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal may not know every character
            stream.reconfigure(line_buffering=True, errors="replace")
    try:
        main(None)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.strerror is None:  # raised by a library, which says nothing of a file
            raise
        where = f"{error.filename}: " if error.filename is not None else ""
        print(
            f"error: {where}{error.strerror}; see to the path, its permissions and the space left, "
            "then start the same command again",
            file=sys.stderr,
        )
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted; start the same command again to continue", file=sys.stderr)
        sys.exit(130)
