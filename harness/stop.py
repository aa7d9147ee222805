"""How a training ends before its time: because it was asked to, or because it diverged."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

from prefix_tuning.errors import Terminated, UserError


class Diverged(UserError):
    """The loss or the parameters are no numbers any more."""

    @classmethod
    def because(cls, what: str, kept: Path | None) -> Diverged:
        """The error of a run.

        Args:
            what: is not a finite number.
            kept: the newest checkpoint, if there is one.
        """
        last = f"the last good state is {kept}" if kept else "no checkpoint had been written yet"
        return cls(
            f"training diverged: {what} is not a finite number; {last}, and nothing is published: "
            "lower --learning_rate and start again with --overwrite_output_dir (to a launcher: "
            "--resume no)"
        )


class Stop:
    """The signal that asked for the end of training, if any."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def ask(self, number: int, frame: object) -> None:
        """Handle a signal: the first ends training after the step, the second at once."""
        if self.signal is not None:
            self.signal = number
            self.end()
        self.signal = number
        print("stopping after this step, with a checkpoint; again: at once", flush=True)

    def end(self) -> None:
        """Raise what ends the process, if that was asked for."""
        if self.signal is not None:
            raise Terminated if self.signal == signal.SIGTERM else KeyboardInterrupt


@contextlib.contextmanager
def stopping() -> Iterator[Stop]:
    """SIGTERM and Ctrl-C are noted, not raised; only in the main thread."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {n: signal.signal(n, stop.ask) for n in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
