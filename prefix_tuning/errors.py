"""One kind of error for everything a user can mend, and one place that prints it."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn


class UserError(ValueError):
    """A mistake in the input: the message is one sentence naming the file, line or flag."""


NOT_FINITE = (
    "not finite numbers, which predict nothing: the weights are damaged, or training diverged and "
    "needs a lower --learning_rate"
)
"""The end of a sentence about logits or scores."""


class Terminated(KeyboardInterrupt):
    """The process was asked to end by SIGTERM."""


_UNWRITTEN = re.compile(r"I/O error: (.+) \(os error")
"""How safetensors reports that the system refuses to write."""
_UNSAVED = ("inline_container.cc", "basic_ios::clear: iostream error")
"""How torch does, which does not say why."""


def refused_write(error: BaseException) -> str | None:
    """Why the system refused to write a file; None if ``error`` is about something else."""
    if isinstance(error, OSError):
        return error.strerror
    if type(error).__name__ == "SafetensorError" and (found := _UNWRITTEN.search(str(error))):
        return found[1]
    if isinstance(error, RuntimeError) and any(said in str(error) for said in _UNSAVED):
        return "the disk is full, or files of this size are not allowed"
    return None


def lacks_memory(error: BaseException) -> bool:
    """Whether there was not enough memory, of the machine or its GPU."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    is_named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return is_named or "can't allocate memory" in str(error)


def run_command(main: Callable[[Sequence[str] | None], object]) -> None:
    """Run ``main(None)`` as a command line program.

    A :class:`UserError` becomes one line on stderr and exit status 2, and so do a file that the
    system refuses and a lack of memory; Ctrl-C becomes exit status 130 (128 + SIGINT, as a shell
    reports it), SIGTERM 143. Anything else is a bug and keeps its traceback. Lines are printed at
    once, into a file or pipe too: a log that is followed shows progress.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal may not know every character
            stream.reconfigure(line_buffering=True, errors="replace")
    try:
        with _terminated(), _threads_in_a_line():
            main(None)
    except UserError as error:
        _end(f"error: {error}", 2)
    except (OSError, RuntimeError, MemoryError) as error:
        _refuse(error)
    except Terminated:
        _end("terminated; start the same command again to continue", 128 + signal.SIGTERM)
    except KeyboardInterrupt:
        _end("interrupted; start the same command again to continue", 128 + signal.SIGINT)
    except Exception as error:
        if type(error).__name__ != "SafetensorError":  # a class that only a library has
            raise
        _refuse(error)


def _end(sentence: str, status: int) -> NoReturn:
    print(sentence, file=sys.stderr)
    sys.exit(status)


def _refuse(error: Exception) -> NoReturn:
    if lacks_memory(error):
        said = " ".join(str(error).split("\n")[0].split()) or type(error).__name__
        _end(
            f"error: not enough memory ({said}); smaller batches, shorter texts "
            "or a smaller model need less, then start the same command again",
            2,
        )
    reason = refused_write(error)
    if reason is None:  # raised by a library, which says nothing of a file
        raise error
    # Of a file that cannot take another's place, the second is the one that the user knows.
    name = getattr(error, "filename2", None) or getattr(error, "filename", None)
    where = f"{name}: " if name is not None else ""
    _end(
        f"error: {where}{reason}; see to the path, its permissions and the space left, "
        "then start the same command again",
        2,
    )


@contextlib.contextmanager
def _terminated() -> Iterator[None]:
    """SIGTERM raises :class:`Terminated`, in this process and not in those that it forks."""
    process = os.getpid()

    def end(number: int, frame: object) -> None:
        if os.getpid() == process:
            raise Terminated
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _threads_in_a_line() -> Iterator[None]:
    """A thread that cannot write, as TensorBoard's, says so in a line; its owner raises it."""
    before = threading.excepthook

    def show(args: threading.ExceptHookArgs) -> None:
        reason = refused_write(args.exc_value) if args.exc_value else None
        if reason is None:
            before(args)
        else:
            print(f"error in a thread that writes: {reason}", file=sys.stderr)

    threading.excepthook = show
    try:
        yield
    finally:
        threading.excepthook = before
