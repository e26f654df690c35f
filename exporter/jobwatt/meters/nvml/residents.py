"""Which processes hold a context on a GPU, or on a MIG instance."""

from __future__ import annotations

from typing import Any

from jobwatt.meters.nvml.library import Library, NothingFound, Unsupported

__all__ = ["Residents"]

_LISTS = ("Compute", "Graphics", "MPSCompute")
_VERSIONS = ("_v3", "_v2")
"""Newest first; an old driver has only the older."""


class Residents:
    """The running processes of one handle, as the union of the driver's three lists."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._functions: list[str] = []
        self.now: dict[int, int | None] = {}
        self.before: dict[int, int | None] = {}

    @property
    def lately(self) -> dict[int, int | None]:
        """Memory in bytes by pid, of those at the last look or at the one before."""
        return {**self.before, **self.now}

    def read(self, handle: Any) -> None:  # noqa: ANN401 - a handle of pynvml
        """Look.

        Raises:
            Unsupported: this driver has no such list at all.
            Denied, Failed, Outdated: as the library. Everything is left as it was.
        """
        found: dict[int, int | None] = {}
        if self._functions:
            for function in self._functions:
                self._add(found, function, handle)
        else:
            self._functions = self._find_functions(found, handle)
        self.before, self.now = self.now, found

    def ask_again(self) -> None:
        """Find out anew which lists there are: the driver may be another."""
        self._functions = []

    def _find_functions(self, found: dict[int, int | None], handle: Any) -> list[str]:  # noqa: ANN401
        """Return the lists that there are, whose processes are added."""
        functions: list[str] = []
        for name in _LISTS:
            for version in _VERSIONS:
                function = f"nvmlDeviceGet{name}RunningProcesses{version}"
                try:
                    self._add(found, function, handle)
                except Unsupported:
                    continue
                functions.append(function)
                break
        if not functions:
            raise Unsupported("this driver does not tell which processes use a GPU")
        return functions

    def _add(self, found: dict[int, int | None], function: str, handle: Any) -> None:  # noqa: ANN401
        """Add one list; a process that is in two has the memory of either."""
        try:
            processes = self._library.ask(function, handle)
        except NothingFound:
            return
        for process in processes:
            memory, known = process.usedGpuMemory, found.get(int(process.pid))
            found[int(process.pid)] = known if memory is None else max(int(memory), known or 0)
