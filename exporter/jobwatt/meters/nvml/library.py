"""The driver's library: loaded where there is one, asked, its errors in the domain's words.

Codes: nvml.h, `nvmlReturn_t`.
"""

from __future__ import annotations

import ctypes
from types import ModuleType
from typing import Any

from jobwatt.errors import Absent, Denied, Failed, ReadError

__all__ = ["Library", "Mismatch", "NoDriver", "NothingFound", "Outdated", "Unsupported"]

SONAME = "libnvidia-ml.so.1"

_NOT_SUPPORTED, _NO_PERMISSION, _NOT_FOUND, _TOO_SMALL = 3, 4, 6, 7
_LIBRARY_NOT_FOUND, _FUNCTION_NOT_FOUND, _VERSION_MISMATCH = 12, 13, 18
_OUTDATED = {1, 9, 15, 16, 28}
"""Uninitialised, driver not loaded, GPU lost, reset required, GPU not found."""


class NoDriver(Absent):
    """This machine has no NVIDIA driver."""


class Unsupported(Absent):
    """This GPU, or this driver, does not tell that."""


class NothingFound(Absent):
    """There is nothing of the kind just now."""


class Outdated(Failed):
    """The library must be started anew: the driver or a GPU has gone, or has come back."""


class Mismatch(Outdated):
    """Library and kernel module are of different versions: no restart in this process heals it."""


class Library:
    """NVML, through pynvml. Any call may block; not for the sampler's thread."""

    def __init__(self, soname: str = SONAME) -> None:
        self._soname = soname
        self._pynvml: ModuleType | None = None
        self._started = False

    @property
    def started(self) -> bool:
        """Whether it can be asked."""
        return self._started

    def start(self) -> None:
        """Load and initialise the library.

        Raises:
            NoDriver: this machine has none.
            Denied, Failed, Outdated, Mismatch: it does not start.
        """
        if self._pynvml is None:
            try:
                ctypes.CDLL(self._soname)
            except OSError as error:
                raise NoDriver(str(error)) from error
            import pynvml  # noqa: PLC0415 - large; only where there is a driver

            self._pynvml = pynvml
        self.ask("nvmlInit")
        self._started = True

    def stop(self) -> None:
        """Shut the library down; handles are worth nothing afterwards."""
        if self._started:
            self._started = False
            try:
                self.ask("nvmlShutdown")
            except ReadError:
                return

    def ask(self, function: str, *arguments: Any) -> Any:  # noqa: ANN401 - as pynvml has it
        """Call a function of pynvml.

        Raises:
            Unsupported, NothingFound, NoDriver, Denied, Failed, Outdated, Mismatch
        """
        pynvml = self._pynvml
        call = getattr(pynvml, function, None)
        if pynvml is None or call is None:
            raise Unsupported(f"{function}: not in this version of pynvml")
        try:
            try:
                return call(*arguments)
            except pynvml.NVMLError as error:
                if error.value != _TOO_SMALL:
                    raise
                return call(*arguments)  # a list has grown after it had told its length
        except pynvml.NVMLError as error:
            raise _translated(function, error.value, str(error)) from error
        except pynvml.NVMLLibraryMismatchError as error:  # not an NVMLError
            raise Unsupported(f"{function}: {error}") from error
        except (ValueError, TypeError, AttributeError) as error:  # a name that is no text, …
            raise Failed(f"{function}: {error}") from error

    @staticmethod
    def address(handle: Any) -> int:  # noqa: ANN401 - as pynvml has it
        """Return what tells handles apart until the library is stopped."""
        return ctypes.cast(handle, ctypes.c_void_p).value or 0

    def new(self, structure: str) -> Any:  # noqa: ANN401 - as pynvml has it
        """Return a new structure of pynvml's."""
        return getattr(self._pynvml, structure)()


def _translated(function: str, code: int, text: str) -> ReadError:
    message = f"{function}: {text}"
    if code in {_NOT_SUPPORTED, _FUNCTION_NOT_FOUND}:
        return Unsupported(message)
    if code in {0, _NOT_FOUND}:  # 0: an empty list, which pynvml takes for an error
        return NothingFound(message)
    if code == _NO_PERMISSION:
        return Denied(message)
    if code == _LIBRARY_NOT_FOUND:
        return NoDriver(message)
    if code == _VERSION_MISMATCH:
        return Mismatch(
            f"{message}: the driver was upgraded under its running kernel module: reload the "
            "module or reboot"
        )
    return Outdated(message) if code in _OUTDATED else Failed(message)
