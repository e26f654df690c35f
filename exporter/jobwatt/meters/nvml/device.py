"""One NVIDIA GPU: its energy, its state, who used it.

Each call fails by itself: a GPU that does not tell its temperature is measured all the same.
"""

from __future__ import annotations

from collections.abc import Callable
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

SLOW_LOOKS = 10
"""What changes seldom, or costs more than it tells, is read at every tenth look."""

UW_PER_MW, UJ_PER_MJ = 1000, 1000
_FIELD_INSTANT = 186  # nvml.h: NVML_FI_DEV_POWER_INSTANT
_SCOPE_GPU, _SCOPE_MODULE = 0, 1  # nvml.h: NVML_POWER_SCOPE_GPU, …_MODULE
_VALUE = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")  # nvmlValueType_t
_TEMPERATURE_GPU = 0  # nvml.h: NVML_TEMPERATURE_GPU
_MEMORY_V2 = 0x2000028  # nvml.h: nvmlMemory_v2: what the driver reserves is not used

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
            Denied, Failed, Outdated: it has neither a UUID nor a PCI address.
        """
        self._library = library
        self._handle = handle
        self._absent: set[tuple[object, ...]] = set()
        uuid = self._told("nvmlDeviceGetUUID") or ""
        bus_id = _bus_id(self._told("nvmlDeviceGetPciInfo_v3"))
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
        self._sleeps = bool(bus_id) and _content(self._may_sleep / "control") == "auto"
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
        own, module = self._power_field(_SCOPE_GPU), self._power_field(_SCOPE_MODULE)
        return own is None or module is None or module <= own

    def _read_power(self) -> int:
        """Return the instant power in µW, or its average where the driver tells no other."""
        if self._instant is not False:
            instant = self._power_field(_SCOPE_GPU)
            self._instant = instant is not None
            if instant is not None:
                return instant
        return int(self._ask("nvmlDeviceGetPowerUsage")) * UW_PER_MW

    def _power_field(self, scope: int) -> int | None:
        try:
            (value,) = self._ask("nvmlDeviceGetFieldValues", [(_FIELD_INSTANT, scope)])
        except (Unsupported, NothingFound):
            return None
        if value.nvmlReturn != 0 or not 0 <= value.valueType < len(_VALUE):
            return None
        milliwatts = getattr(value.value, _VALUE[value.valueType])
        return round(milliwatts * UW_PER_MW) if milliwatts > 0 else None

    # --- state ----------------------------------------------------------------------------------

    def read_state(self, now_ns: int, offset_us: int, faults: list[Fault]) -> GpuState:
        """Read who used it and how it is; what cannot be read is None, and a fault.

        Raises:
            Outdated: the library must be started anew.
        """
        if self._looks % SLOW_LOOKS == 0:
            self._read_slowly(faults)
        self._looks += 1
        first = self._state_at_ns is None
        span_ns = now_ns - (self._state_at_ns or now_ns)
        instances: tuple[GpuInstance, ...] = ()
        use: GpuUse | None
        if self._mig:
            instances = self._read_instances(faults)
            use = GpuUse()
        else:
            use = self._read_use(span_ns, offset_us, faults)
        if use is not None:
            self._state_at_ns = now_ns
        memory = self._told("nvmlDeviceGetMemoryInfo", faults, _MEMORY_V2)
        if memory is None:
            memory = self._told("nvmlDeviceGetMemoryInfo", faults)
        rates = None if self._mig else self._told("nvmlDeviceGetUtilizationRates", faults)
        return GpuState(
            info=self._info,
            span_ns=span_ns,
            use=None if first else use,
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
        mode = self._told("nvmlDeviceGetMigMode", faults)
        divided = bool(mode and mode[0])
        if divided != self._mig:
            self._mig = divided
            self._absent.clear()  # other things can be asked now
            self._info = replace(self._info, mig=divided)

    def _read_use(self, span_ns: int, offset_us: int, faults: list[Fault]) -> GpuUse | None:
        """Return who used the whole GPU; None where that cannot be known."""
        try:
            self._residents.read(self._handle)
            lately = self._residents.lately
            found = self._samples.read(self._handle, lately.keys(), offset_us)
        except Outdated:
            raise
        except ReadError as error:
            faults.append(Fault(f"{self.name} processes", error.reason, str(error)))
            return None
        holders = frozenset(self._residents.now)
        if found is None:
            return GpuUse(lately, holders)
        busy, strays = found
        unseen_ns = max(0, span_ns - KEPT_NS)
        unknown = (sum(busy.values()) + sum(strays.values())) * unseen_ns // KEPT_NS
        return GpuUse(lately, holders, busy, strays, unknown=unknown)

    # --- MIG ------------------------------------------------------------------------------------

    def _read_instances(self, faults: list[Fault]) -> tuple[GpuInstance, ...]:
        """Return its MIG instances; slots may be empty, and mean another instance later."""
        found: list[tuple[GpuInstance, int]] = []
        before, self._instances = self._instances, {}
        for slot in range(self._told("nvmlDeviceGetMaxMigDeviceCount", faults) or 0):
            try:
                handle = self._ask("nvmlDeviceGetMigDeviceHandleByIndex", slot)
                found.append(self._read_instance(handle, before))
            except Outdated:
                raise
            except (NothingFound, Unsupported):
                continue
            except ReadError as error:
                faults.append(Fault(f"{self.name} MIG slot {slot}", error.reason, str(error)))
        if all(instance.size for instance, _ in found):
            return tuple(instance for instance, _ in found)
        # Slices stand in for multiprocessors where one instance does not tell them.
        return tuple(replace(instance, size=slices) for instance, slices in found)

    def _read_instance(
        self, handle: Handle, before: dict[str, Residents]
    ) -> tuple[GpuInstance, int]:
        """Return an instance, sized by its multiprocessors, and its slices."""
        ask = self._library.ask
        uuid = ask("nvmlDeviceGetUUID", handle)
        residents = before.get(uuid) or Residents(self._library)
        residents.read(handle)
        self._instances[uuid] = residents
        attributes = ask("nvmlDeviceGetAttributes_v2", handle)
        activity = None
        if self._monitors.supported:
            activity = self._monitors.activity(ask("nvmlDeviceGetGpuInstanceId", handle))
        instance = GpuInstance(
            uuid=uuid,
            name=str(ask("nvmlDeviceGetName", handle)).rpartition(" ")[2],
            size=int(attributes.multiprocessorCount),
            use=GpuUse(residents.lately, frozenset(residents.now)),
            activity=activity,
            memory_used_bytes=int(ask("nvmlDeviceGetMemoryInfo", handle).used),
        )
        return instance, int(attributes.gpuInstanceSliceCount)

    # --- asking ---------------------------------------------------------------------------------

    def _ask(self, function: str, *arguments: object) -> Any:  # noqa: ANN401 - as pynvml has it
        return self._library.ask(function, self._handle, *arguments)

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
