"""What NVML answers to the exporter, and how long it takes: a `Library` that writes it down."""

from __future__ import annotations

import ctypes
import re
import time
from collections import defaultdict
from typing import Any

from jobwatt.errors import ReadError
from jobwatt.meters.nvml.library import SONAME, Library

PROFILE: tuple[tuple[str, tuple[object, ...]], ...] = (
    ("nvmlDeviceGetBrand", ()),
    ("nvmlDeviceGetCudaComputeCapability", ()),
    ("nvmlDeviceGetPersistenceMode", ()),
    ("nvmlDeviceGetComputeMode", ()),
    ("nvmlDeviceGetPerformanceState", ()),
    ("nvmlDeviceGetPowerUsage", ()),
    ("nvmlDeviceGetPowerManagementLimit", ()),
    ("nvmlDeviceGetPowerManagementDefaultLimit", ()),
    ("nvmlDeviceGetPowerManagementLimitConstraints", ()),
    ("nvmlDeviceGetFieldValues", ([(185, 0), (186, 0), (186, 1), (186, 2), (190, 0), (83, 0)],)),
    ("nvmlDeviceGetSupportedClocksEventReasons", ()),
    *(("nvmlDeviceGetClockInfo", (kind,)) for kind in range(4)),
    *(("nvmlDeviceGetMaxClockInfo", (kind,)) for kind in range(4)),
    ("nvmlDeviceGetMaxMigDeviceCount", ()),
    ("nvmlDeviceGetVirtualizationMode", ()),
)
"""What the exporter does not ask, and a fake GPU needs to know."""

_UUID = re.compile(r"\b(GPU|MIG)-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", re.ASCII)

_EMPTY = 6  # nvml.h: NVML_ERROR_NOT_FOUND: no samples, no list, no instance in this slot

FIRST_PID = 4001

VALUE_TYPES = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")
"""Members of the union of a field's value, by nvmlValueType_t."""


class Recorder(Library):
    """NVML, whose answers are kept by phase: the last of each question; and the time of each call.

    Attributes:
        phase: what goes on now.
        microseconds: how long each call took, by function.
        codes: how often each function returned which code.
    """

    def __init__(self, soname: str = SONAME) -> None:
        super().__init__(soname)
        self.phase = "start"
        self.microseconds: dict[str, list[float]] = defaultdict(list)
        self.codes: dict[str, dict[int, int]] = defaultdict(lambda: defaultdict(int))
        self._answers: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
        self._names: dict[int | None, str] = {}
        self._pids: dict[int, int] = {}

    def ask(self, function: str, *arguments: Any) -> Any:  # noqa: ANN401 - as pynvml has it
        """Ask, measure, write down."""
        begin = time.perf_counter_ns()
        try:
            answer = super().ask(function, *arguments)
        except ReadError as error:
            self._took(function, begin)
            self._keep(function, arguments, _code(error), None)
            raise
        self._took(function, begin)
        self._keep(function, arguments, 0, answer)
        return answer

    def ask_profile(self, index: int) -> None:
        """Ask of one GPU what only a fake of it needs; not timed."""
        handle = super().ask("nvmlDeviceGetHandleByIndex", index)
        self._names[_address(handle)] = f"gpu {index}"
        for function, arguments in (*PROFILE, ("nvmlSystemGetCudaDriverVersion_v2", None)):
            asked = () if arguments is None else (handle, *arguments)
            try:
                self._keep(function, asked, 0, super().ask(function, *asked), count=False)
            except ReadError as error:
                self._keep(function, asked, _code(error), None, count=False)

    def answers(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Return all answers by phase and question; who and which machine it was, made up."""
        made_up: dict[str, str] = {}
        found: dict[str, dict[str, dict[str, Any]]] = _renamed(dict(self._answers), made_up)
        return found

    def _took(self, function: str, begin: int) -> None:
        self.microseconds[function].append((time.perf_counter_ns() - begin) / 1000)

    def _keep(
        self,
        function: str,
        arguments: tuple[Any, ...],
        code: int,
        answer: object,
        *,
        count: bool = True,
    ) -> None:
        if count:
            self.codes[function][code] += 1
        if function == "nvmlDeviceGetHandleByIndex" and answer is not None:
            self._names[_address(answer)] = f"gpu {arguments[0]}"
        elif function == "nvmlDeviceGetMigDeviceHandleByIndex" and answer is not None:
            name = self._names.get(_address(arguments[0]), "?")
            self._names[_address(answer)] = f"{name} mig {arguments[1]}"
        question = self._question(function, arguments)
        kept = self._answers[self.phase]
        if code == _EMPTY and kept.get(question, {}).get("code") == 0:
            return  # an answer says more
        kept[question] = {"code": code}
        if code == 0:
            kept[question]["value"] = self._plain(answer)

    def _question(self, function: str, arguments: tuple[Any, ...]) -> str:
        if function == "nvmlDeviceGetProcessUtilization":
            arguments = arguments[:1]  # the time of the newest sample seen: always another
        return f"{function}({', '.join(str(self._plain(one)) for one in arguments)})"

    def _plain(self, value: Any) -> Any:  # noqa: ANN401, PLR0911 - JSON
        if value is None or isinstance(value, str | int | float | bool):
            return value
        if isinstance(value, bytes):
            return value.decode(errors="replace")
        if isinstance(value, list | tuple):
            return [self._plain(one) for one in value]
        if isinstance(value, ctypes.Structure | ctypes.Union):
            fields = {
                name: self._pid(shown) if name == "pid" else shown
                for name, *_ in value._fields_
                if not name.startswith("reserved")
                for shown in [self._plain(getattr(value, name))]
            }
            if "valueType" in fields and fields["valueType"] < len(VALUE_TYPES):
                fields["value"] = fields["value"][VALUE_TYPES[fields["valueType"]]]
            return fields
        if isinstance(value, ctypes.Array):
            return [self._plain(one) for one in value][:4]
        if isinstance(value, ctypes._SimpleCData):
            return self._plain(value.value)
        if hasattr(value, "__dict__") and not hasattr(value, "contents"):
            # What pynvml makes of a structure: a NVMLFriendlyObject.
            return {
                name: self._pid(shown) if name == "pid" else shown
                for name, one in vars(value).items()
                for shown in [self._plain(one)]
            }
        return self._names.get(_address(value), type(value).__name__)

    def _pid(self, pid: Any) -> Any:  # noqa: ANN401 - JSON
        return self._pids.setdefault(pid, FIRST_PID + len(self._pids)) if pid else pid


def _address(handle: Any) -> int | None:  # noqa: ANN401 - a pointer of pynvml's
    try:
        return ctypes.cast(handle, ctypes.c_void_p).value
    except (ctypes.ArgumentError, TypeError):
        return None


def _code(error: ReadError) -> int:
    """Return what NVML returned; -1 where pynvml never called it."""
    return int(getattr(error.__cause__, "value", -1))


def _renamed(value: Any, made_up: dict[str, str]) -> Any:  # noqa: ANN401 - JSON
    """Return JSON with made-up UUIDs."""

    def instead(match: re.Match[str]) -> str:
        number = len(made_up) + 1
        return made_up.setdefault(match[0], f"{match[1]}-00000000-0000-0000-0000-{number:012d}")

    if isinstance(value, str):
        return _UUID.sub(instead, value)
    if isinstance(value, list):
        return [_renamed(one, made_up) for one in value]
    if isinstance(value, dict):
        return {_renamed(key, made_up): _renamed(one, made_up) for key, one in value.items()}
    return value
