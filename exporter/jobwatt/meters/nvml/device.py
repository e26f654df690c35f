"""One NVIDIA GPU: its energy, its state, who used it.

Each call fails by itself: a GPU that does not tell its temperature is measured all the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from jobwatt.errors import Failed, ReadError
from jobwatt.gpus import GpuInfo, GpuInstance, GpuState, GpuUse
from jobwatt.host.files import read_text
from jobwatt.meters.integral import PowerIntegral
from jobwatt.meters.nvml.gpm import Monitors
from jobwatt.meters.nvml.library import Library, NothingFound, Outdated, Unsupported
from jobwatt.meters.nvml.residents import Residents
from jobwatt.meters.nvml.samples import KEPT_NS, ProcessSamples
from jobwatt.model import Component, Counter, Device, Fault, Reading, Source

__all__ = ["NvmlDevice"]

Handle = Any
"""A handle of pynvml's."""

MODULE_MARGIN_UW = 10_000_000
"""A module that draws so much more than its GPU has something else on it: two readings of one
sensor are never quite equal."""

SLOW_LOOKS = 10
"""What changes seldom, or costs more than it tells, is read at every tenth look."""

UW_PER_MW, UJ_PER_MJ = 1000, 1000
_FIELD_INSTANT = 186  # nvml.h: NVML_FI_DEV_POWER_INSTANT
_SCOPE_GPU, _SCOPE_MODULE = 0, 1  # nvml.h: NVML_POWER_SCOPE_GPU, …_MODULE
_VALUE = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")  # nvmlValueType_t
_TEMPERATURE_GPU = 0  # nvml.h: NVML_TEMPERATURE_GPU
_MEMORY_V2 = 0x2000028  # nvml.h: nvmlMemory_v2: what the driver reserves is not used

_SUPERCHIP = re.compile(r"\bG[HB]\d{3}\b")
"""Models whose module has a Grace CPU, too: GH200, GB200."""

_ARCHITECTURES = {
    2: "Kepler",
    3: "Maxwell",
    4: "Pascal",
    5: "Volta",
    6: "Turing",
    7: "Ampere",
    8: "Ada",
    9: "Hopper",
    10: "Blackwell",
    13: "Rubin",
}
"""nvml.h: NVML_DEVICE_ARCH_*"""

_THROTTLE = {
    "sw_power_cap": 0x4,
    "hw_slowdown": 0x8,
    "sync_boost": 0x10,
    "sw_thermal_slowdown": 0x20,
    "hw_thermal_slowdown": 0x40,
    "hw_power_brake_slowdown": 0x80,
}
"""nvml.h: nvmlClocksEventReason*, those that hold the clocks down against the GPU's will."""


class NvmlDevice:
    """One GPU, known by its UUID over restarts of the library."""

    def __init__(
        self, library: Library, handle: Handle, index: int, driver: str, sysfs: Path
    ) -> None:
        """Find out what it is.

        Raises:
            Denied, Failed, Outdated: it does not say which one it is.
        """
        self._library = library
        self._handle = handle
        self._absent: set[tuple[object, ...]] = set()
        uuid = self._named("nvmlDeviceGetUUID") or ""
        ask = self._told if uuid else self._named
        bus_id = _bus_id(ask("nvmlDeviceGetPciInfo_v3"))
        if not uuid and not bus_id:
            raise Failed(f"GPU {index} has neither a UUID nor a PCI address")
        self.name = uuid or bus_id
        self.index = index
        self._info = GpuInfo(
            uuid=uuid,
            index=index,
            minor=self._told("nvmlDeviceGetMinorNumber"),
            pci_bus_id=bus_id,
            driver=driver,
            architecture=_ARCHITECTURES.get(self._told("nvmlDeviceGetArchitecture"), ""),
        )
        self._model = self._told("nvmlDeviceGetName") or ""
        self._may_sleep = sysfs / "bus/pci/devices" / bus_id.lower() / "power"
        self._sleeps = False
        self._integral = PowerIntegral()
        self._instant: bool | None = None
        source = Source.NVML_ENERGY if self._has_energy() else Source.NVML_POWER
        self.device = Device(Component.GPU, self.name, source, None, self._model)
        self.limit_uw: int | None = None
        self._residents = Residents(library)
        self._samples = ProcessSamples(library)
        self._monitors = Monitors(library, handle)
        self._instances: dict[str, Residents] = {}
        self._mig: bool = False
        self._state_at_ns: int | None = None
        self._slow: dict[str, Any] = {}
        self._looks = 0
        self.is_slow = False
        self._read_slowly([])
        self.counter = Counter(
            f"nvml:{self.name}",
            self.device,
            limit_uw=self.limit_uw,
            peak_uw=self.limit_uw,
            lasting=source is Source.NVML_ENERGY,
        )

    def renew(self, handle: Handle, index: int, driver: str) -> None:
        """Go on with the handle of a library that has been started anew."""
        self._handle = handle
        self.index = index
        self._absent.clear()
        self._instant = None
        self._residents.ask_again()
        self._monitors = Monitors(self._library, handle)
        self._instances.clear()
        self._info = replace(self._info, index=index, driver=driver)

    @property
    def is_asleep(self) -> bool:
        """Whether the kernel has switched it off: a look would wake it."""
        return self._sleeps and _content(self._may_sleep / "runtime_status") == "suspended"

    # --- energy ---------------------------------------------------------------------------------

    def read_energy(self, clock: Callable[[], int]) -> Reading:
        """Read the energy counter, or integrate power where there is none.

        Raises:
            Absent, Denied, Failed, Outdated: it does not answer.
        """
        if self.device.source is Source.NVML_ENERGY:
            energy_mj = self._ask("nvmlDeviceGetTotalEnergyConsumption")
            return Reading(self.counter, int(energy_mj) * UJ_PER_MJ, clock())
        power_uw = self._read_power()
        at_ns = clock()
        lost_ns = self._integral.add(power_uw, at_ns)
        return Reading(self.counter, self._integral.value_uj, at_ns, lost_ns)

    def _has_energy(self) -> bool:
        """Whether its counter is its own.

        On a module that joins a GPU and a CPU (GH200) the counter is the module's: the GPU's own
        power is then integrated, or the CPU would be counted twice.
        """
        try:
            self._ask("nvmlDeviceGetTotalEnergyConsumption")
        except Unsupported:
            return False
        except ReadError:
            return True
        try:
            own, module = self._power_fields(_SCOPE_GPU, _SCOPE_MODULE)
        except ReadError:
            own = module = None
        if not own or not module:
            return not _SUPERCHIP.search(self._model)
        return module < own + MODULE_MARGIN_UW

    def _read_power(self) -> int:
        """Return the instant power in µW, or its average where the driver tells no other."""
        if self._instant is not False:
            try:
                (instant,) = self._power_fields(_SCOPE_GPU)
            except (Unsupported, NothingFound):
                instant = None
            if self._instant is None:
                self._instant = bool(instant)  # 0 is what some tell who have no such reading
            elif instant is None:
                raise Failed("nvmlDeviceGetFieldValues: no instant power this time")
            if instant is not None and self._instant:
                return instant
        return int(self._ask("nvmlDeviceGetPowerUsage")) * UW_PER_MW

    def _power_fields(self, *scopes: int) -> list[int | None]:
        """Return the instant power in µW in each scope, None where there is none."""
        fields = [(_FIELD_INSTANT, scope) for scope in scopes]
        found: list[int | None] = []
        for value in self._ask("nvmlDeviceGetFieldValues", fields):
            if value.nvmlReturn != 0 or not 0 <= value.valueType < len(_VALUE):
                found.append(None)
                continue
            milliwatts = getattr(value.value, _VALUE[value.valueType])
            found.append(round(milliwatts * UW_PER_MW) if milliwatts >= 0 else None)
        return found

    # --- state ----------------------------------------------------------------------------------

    def read_state(self, now_ns: int, offset_us: int, faults: list[Fault]) -> GpuState:
        """Read who used it and how it is; what cannot be read is None, and a fault.

        Raises:
            Outdated: the library must be started anew.
        """
        if self._looks % SLOW_LOOKS == 0 and not self.is_slow:
            self._read_slowly(faults)
        self._looks += 1
        first = self._state_at_ns is None
        span_ns = now_ns - (self._state_at_ns or now_ns)
        instances: tuple[GpuInstance, ...] = ()
        use = None if self._mig else self._read_use(now_ns, span_ns, offset_us, faults)
        if self._mig:
            instances, use = self._read_instances(faults)
        if use is not None:
            self._state_at_ns = now_ns
        memory = rates = None
        if not self.is_slow:  # who used it matters more: the driver forgets that within seconds
            memory = self._told("nvmlDeviceGetMemoryInfo", faults, _MEMORY_V2)
            memory = memory or self._told("nvmlDeviceGetMemoryInfo", faults)
            rates = None if self._mig else self._told("nvmlDeviceGetUtilizationRates", faults)
        return GpuState(
            info=self._info,
            span_ns=span_ns,
            use=None if first and self._mig else use,
            instances=instances,
            utilization_ratio=None if rates is None else rates.gpu / 100,
            memory_used_bytes=None if memory is None else int(memory.used),
            memory_total_bytes=None if memory is None else int(memory.total),
            temperature_celsius=self._slow.get("temperature"),
            throttled=self._slow.get("throttled", {}),
        )

    def _read_slowly(self, faults: list[Fault]) -> None:
        limit_mw = self._told("nvmlDeviceGetEnforcedPowerLimit", faults)
        self.limit_uw = None if limit_mw is None else int(limit_mw) * UW_PER_MW
        degrees = self._told("nvmlDeviceGetTemperature", faults, _TEMPERATURE_GPU)
        reasons = self._told("nvmlDeviceGetCurrentClocksEventReasons", faults)
        if reasons is None:
            reasons = self._told("nvmlDeviceGetCurrentClocksThrottleReasons", faults)
        self._slow = {"temperature": None if degrees is None else float(degrees)}
        if reasons is not None:
            self._slow["throttled"] = {name: bool(reasons & b) for name, b in _THROTTLE.items()}
        # A GPU that nobody uses may be switched off; this may change while JobWatt runs.
        bus_id = self._info.pci_bus_id
        self._sleeps = bool(bus_id) and _content(self._may_sleep / "control") == "auto"
        self._read_mode(faults)

    def _read_mode(self, faults: list[Fault]) -> None:
        """Find out whether it is divided; what cannot be read is as it was."""
        mode = self._told("nvmlDeviceGetMigMode", faults)
        if mode is None and ("nvmlDeviceGetMigMode",) not in self._absent:
            return
        divided = bool(mode and mode[0])
        if divided != self._mig:
            self._mig = divided
            self._absent.clear()  # other things can be asked now
            self._residents = Residents(self._library)
            self._instances.clear()
            self._info = replace(self._info, mig=divided)

    def _read_use(
        self, now_ns: int, span_ns: int, offset_us: int, faults: list[Fault]
    ) -> GpuUse | None:
        """Return who used the whole GPU; None where that cannot be known."""
        try:
            # Samples first: who begins between the two is resident, and idle, instead of a stray.
            found = self._samples.read(self._handle, now_ns, offset_us)
            if found is None:
                self._read_mode(faults)
                if self._mig:
                    return None
            self._residents.read(self._handle)
        except Outdated:
            raise
        except ReadError as error:
            faults.append(Fault(f"{self.name} processes", error.reason, str(error)))
            return None
        lately, holders = self._residents.lately, frozenset(self._residents.now)
        if found is None:
            return GpuUse(lately, holders)
        busy = {pid: amount for pid, amount in found.items() if pid in lately}
        strays = {pid: amount for pid, amount in found.items() if pid not in lately}
        unseen_ns = max(0, span_ns - KEPT_NS)
        unknown = sum(found.values()) * unseen_ns // KEPT_NS
        return GpuUse(lately, holders, busy, strays, unknown=unknown)

    # --- MIG ------------------------------------------------------------------------------------

    def _read_instances(self, faults: list[Fault]) -> tuple[tuple[GpuInstance, ...], GpuUse | None]:
        """Return its MIG instances; slots may be empty, and mean another instance later.

        Instead of a use None where there is an instance of which nothing is known: what the others
        did is then no measure of their part.
        """
        found: list[tuple[GpuInstance, int]] = []
        use: GpuUse | None = GpuUse()
        before, self._instances = self._instances, {}
        self._monitors.begin_look()
        slots = self._told("nvmlDeviceGetMaxMigDeviceCount", faults)
        if slots is None:
            use = None
        for slot in range(slots or 0):
            try:
                handle = self._ask("nvmlDeviceGetMigDeviceHandleByIndex", slot)
                uuid = str(self._library.ask("nvmlDeviceGetUUID", handle))
            except Outdated:
                raise
            except (NothingFound, Unsupported):
                continue
            except ReadError as error:
                faults.append(Fault(f"{self.name} MIG slot {slot}", error.reason, str(error)))
                use = None
                continue
            residents = self._instances[uuid] = before.get(uuid) or Residents(self._library)
            try:
                residents.read(handle)
            except Outdated:
                raise
            except ReadError as error:
                faults.append(Fault(f"{uuid} processes", error.reason, str(error)))
                use = use if uuid in before else None
            found.append(self._read_instance(handle, uuid, residents))
        if not found:
            self._read_mode(faults)
            if not self._mig:
                use = None
        return _comparable(found), use

    def _read_instance(
        self, handle: Handle, uuid: str, residents: Residents
    ) -> tuple[GpuInstance, int]:
        """Return an instance, sized by its multiprocessors, and its slices; 0 where not told."""
        attributes = self._told_of(handle, "nvmlDeviceGetAttributes_v2")
        name = self._told_of(handle, "nvmlDeviceGetName")
        memory = self._told_of(handle, "nvmlDeviceGetMemoryInfo")
        activity = None
        if self._monitors.supported:
            gpu_instance = self._told_of(handle, "nvmlDeviceGetGpuInstanceId")
            if gpu_instance is not None:
                activity = self._monitors.activity(gpu_instance)
        instance = GpuInstance(
            uuid=uuid,
            name=str(name or "").rpartition(" ")[2],
            size=0 if attributes is None else int(attributes.multiprocessorCount),
            use=GpuUse(residents.lately, frozenset(residents.now)),
            activity=activity,
            memory_used_bytes=None if memory is None else int(memory.used),
        )
        return instance, 0 if attributes is None else int(attributes.gpuInstanceSliceCount)

    # --- asking ---------------------------------------------------------------------------------

    def _ask(self, function: str, *arguments: object) -> Any:  # noqa: ANN401 - as pynvml has it
        return self._library.ask(function, self._handle, *arguments)

    def _named(self, function: str) -> Any:  # noqa: ANN401 - as pynvml has it
        """Return what names the GPU, None where it has none; else a failure is no other name."""
        try:
            return self._ask(function)
        except (Unsupported, NothingFound):
            return None

    def _told_of(self, handle: Handle, function: str) -> Any:  # noqa: ANN401 - as pynvml has it
        """Return what a function tells of an instance, None where it cannot. Raises Outdated."""
        try:
            return self._library.ask(function, handle)
        except Outdated:
            raise
        except ReadError:
            return None

    def _told(self, function: str, faults: list[Fault] | None = None, *arguments: object) -> Any:  # noqa: ANN401
        """Return what a function tells, None where it cannot.

        What is not supported is not asked again. Raises Outdated.
        """
        if (function, *arguments) in self._absent:
            return None
        try:
            return self._ask(function, *arguments)
        except Outdated:
            raise
        except Unsupported:
            self._absent.add((function, *arguments))
        except NothingFound:
            pass
        except ReadError as error:
            if faults is not None:
                faults.append(Fault(f"{self.name} {function}", error.reason, str(error)))
        return None


def _comparable(found: Sequence[tuple[GpuInstance, int]]) -> tuple[GpuInstance, ...]:
    """Return instances whose sizes are in one unit, out of these and their slices.

    Slices stand in for multiprocessors where one instance does not tell them.
    """
    if all(instance.size for instance, _ in found):
        return tuple(instance for instance, _ in found)
    told = all(slices for _, slices in found)
    return tuple(replace(instance, size=slices if told else 1) for instance, slices in found)


def _bus_id(pci: Any) -> str:  # noqa: ANN401 - a structure of pynvml's
    """Return a PCI address as Linux writes it: NVML has a longer domain and capital letters."""
    if pci is None:
        return ""
    text = pci.busId.decode() if isinstance(pci.busId, bytes) else str(pci.busId)
    domain, _, rest = text.lower().partition(":")
    return f"{domain[-4:]}:{rest}" if rest else ""


def _content(path: Path) -> str:
    try:
        return read_text(path)
    except ReadError:
        return ""
