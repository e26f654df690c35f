"""Starts a command and waits for its end, as if it had been started without us.

It stays in our process group, with our terminal, streams and every other open file; signals that
are sent to us are passed on. What comes from the terminal reaches the whole group anyway, and is
not passed on a second time.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import shutil
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

__all__ = ["Ended", "Signals", "StartError", "start", "wait"]

FORWARDED = frozenset(
    {
        signal.SIGINT,
        signal.SIGTERM,
        signal.SIGHUP,
        signal.SIGQUIT,
        signal.SIGUSR1,
        signal.SIGUSR2,
        signal.SIGWINCH,
        signal.SIGTSTP,
        signal.SIGCONT,
    }
)
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
"""Who sends one of these does not want to wait any longer."""

LOOK_SECONDS = 1.0
"""How often the command is looked at without a signal: a thread that was there before `Signals`, an
audit hook's say, may have been given the one that told of its end."""

NOT_EXECUTABLE, NOT_FOUND, BY_SIGNAL = 126, 127, 128
"""Exit codes as shells have them."""


class StartError(Exception):
    """The command cannot be started; `code` is what a shell would exit with."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended.

    Attributes:
        code: its exit code, 128 + the signal's number where one ended it.
        signal: that signal's name.
        cpu_seconds: CPU time of itself and of the children that were waited for.
    """

    code: int
    signal: str | None
    cpu_seconds: float


class Signals:
    """Holds back the signals that are passed on, so that none is lost and none ends us.

    Made before any thread is, so that all threads leave them alone.
    """

    def __init__(self) -> None:
        self._held = FORWARDED | {signal.SIGCHLD}
        self.before: set[signal.Signals | int] = set()

    def __enter__(self) -> Self:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # whoever ignores it never hears of an end
        self.before = set(signal.pthread_sigmask(signal.SIG_BLOCK, self._held))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # What is still pending was meant for the command.
        while signal.sigtimedwait(self._held, 0) is not None:
            pass
        signal.pthread_sigmask(signal.SIG_SETMASK, self.before)

    def asked_to_end(self) -> int | None:
        """Return the number of a signal that came already and wants us to end."""
        taken = signal.sigtimedwait(ENDING, 0)
        return None if taken is None else taken.si_signo

    def take(self) -> signal.struct_siginfo | None:
        """Wait for the next one; None where none came for a while."""
        return signal.sigtimedwait(self._held, LOOK_SECONDS)

    def pause(self, seconds: float) -> bool:
        """Wait; return at once, and False, when somebody asks us to end."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            taken = signal.sigtimedwait(FORWARDED, left)
            if taken is not None and taken.si_signo in ENDING:
                return False
        return True

    def stop_as_asked(self) -> None:
        """Stop by SIGTSTP, if that is what it does here, until somebody lets us go on."""
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTSTP})
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTSTP})


def start(command: Sequence[str], environment: Mapping[str, str], signals: Signals) -> int:
    """Start a command and return its pid.

    Raises:
        StartError: it is not there, or is no program.
    """
    try:
        return _spawn(command, environment, signals)
    except OSError as error:
        if error.errno == errno.ENOEXEC:  # a script without a first line: a shell's
            script = shutil.which(command[0]) or command[0]
            with contextlib.suppress(OSError):
                return _spawn(("/bin/sh", script, *command[1:]), environment, signals)
        missing = error.errno in {errno.ENOENT, errno.ENOTDIR}
        code = NOT_FOUND if missing else NOT_EXECUTABLE
        why = "command not found" if missing else error.strerror
        raise StartError(f"{command[0]}: {why}", code) from error
    except ValueError as error:  # a NUL in an argument or a variable
        raise StartError(f"{command[0]}: {error}", NOT_EXECUTABLE) from error


def wait(pid: int, signals: Signals) -> Ended:
    """Pass signals on until the command has ended."""
    is_leader = os.getsid(0) == os.getpid()
    while True:
        taken = signals.take()
        if taken is None or taken.si_signo == signal.SIGCHLD:
            found, status, usage = os.wait4(pid, os.WNOHANG)
            if found:
                return _ended(status, usage)
            continue
        number = signal.Signals(taken.si_signo)
        # The kernel's own signals come from the terminal, to the whole group; a hang-up goes to
        # the session's leader alone.
        if taken.si_code <= 0 or (number is signal.SIGHUP and is_leader):
            with contextlib.suppress(OSError):
                os.kill(pid, number)
        if number is signal.SIGTSTP:
            signals.stop_as_asked()


def _spawn(command: Sequence[str], environment: Mapping[str, str], signals: Signals) -> int:
    # Python ignores these two; a program that is started expects them as they were.
    return os.posix_spawnp(
        command[0],
        list(command),
        dict(environment),
        setsigmask=signals.before,
        setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],
    )


def _ended(status: int, usage: resource.struct_rusage) -> Ended:
    cpu_seconds = usage.ru_utime + usage.ru_stime
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return Ended(code, None, cpu_seconds)
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"  # a real-time signal
    return Ended(BY_SIGNAL - code, name, cpu_seconds)
