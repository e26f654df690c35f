"""The composition root: the only module that names every concrete part."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import resource
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jobwatt
from jobwatt.accounting import Accountant
from jobwatt.attribution.gpu_claims import VARIABLES as GPU_VARIABLES
from jobwatt.attribution.policy import DramPolicy
from jobwatt.config import Config
from jobwatt.errors import Absent, Failed, ReadError
from jobwatt.host.cgroupfs import Cgroupfs, CgroupOwners, find_cgroupfs
from jobwatt.host.files import read_text
from jobwatt.host.job_ads import JobAds
from jobwatt.host.job_files import JobFiles
from jobwatt.host.procfs import Procfs
from jobwatt.host.run_cgroup import RunCgroup, make_run_cgroup
from jobwatt.host.slurmstepd import StepTitles
from jobwatt.host.topology import read_topology
from jobwatt.host.users import UserNames
from jobwatt.jobs import JobBook
from jobwatt.ledger import Ledger, SeriesRules
from jobwatt.meters.contract import Meter
from jobwatt.meters.estimate import EstimateMeter
from jobwatt.meters.hwmon.grace import measures_packages
from jobwatt.meters.hwmon.meter import HwmonMeter
from jobwatt.meters.nvml.meter import NvmlMeter
from jobwatt.meters.own_thread import OwnThread
from jobwatt.meters.rapl import RaplMeter
from jobwatt.sampler import Sampler
from jobwatt.snapshot import NodeInfo
from jobwatt.store import Store
from jobwatt.units import NS, UJ
from jobwatt.usage.contract import UsageProbe
from jobwatt.usage.processes import HostProcesses
from jobwatt.workloads import declared, flux, htcondor, lsf, names, pbs, slurm
from jobwatt.workloads.containers import ContainerResolver
from jobwatt.workloads.contract import Facts, Resolver, resolve
from jobwatt.workloads.kubernetes import KubernetesScheduler
from jobwatt.workloads.owners import JobOwners, OwnedResolver
from jobwatt.workloads.pods import PodJobs
from jobwatt.workloads.run_cgroup import RunCgroupResolver
from jobwatt.workloads.schedulers import SchedulerResolver
from jobwatt.workloads.systemd import SystemdResolver

__all__ = [
    "Parts",
    "host_parts",
    "local_sampler",
    "make_sampler",
    "owner_of_child",
    "run_cgroup",
    "serve",
    "simulated_parts",
]

log = logging.getLogger(__name__)

OWNER_VARIABLES = tuple(
    name
    for module in (slurm, pbs, lsf, htcondor, flux, declared, names)
    for name in module.VARIABLES
)
"""What resolvers read of a process's environment."""

ATTEMPTS, ATTEMPT_SECONDS = 5, 0.1
"""Before a CPU that has RAPL is estimated."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What a sampler is made of, apart from the rules: a real host's, or a simulated one's.

    Attributes:
        clock, wall: monotonic and Unix time.
        catch_up: lets a stretch of a simulated past go by; whether there was any.
        pods: whose decisions outlive a restart, None where there are no pods.
    """

    meters: Sequence[Meter]
    usage: UsageProbe
    cpus: int
    owners: JobOwners | None = None
    clock: Callable[[], int] = time.monotonic_ns
    wall: Callable[[], float] = time.time
    catch_up: Callable[[], bool] = lambda: False
    pods: PodJobs | None = None


def host_parts(config: Config, must_restart: Callable[[str], None] = lambda _: None) -> Parts:
    """Return the parts for the machine that `config` points at.

    `must_restart` is called with a reason when only another process can go on measuring.
    """
    procfs = Procfs(config.path_procfs)
    topology = read_topology(config.path_sysfs)
    users = UserNames(config.path_rootfs)
    cgroupfs = _cgroupfs(config, procfs)
    files = JobFiles(config.path_rootfs / str(config.job_directory).lstrip("/"), users.name)
    owners = JobOwners(config.job_max_per_user, users.name, files.uid_of)
    pods = _pod_jobs(config)
    resolvers = _resolvers(config, procfs, cgroupfs, users, owners, files, pods)
    records = names.JobNames(
        files.refresh,
        pods.refresh,
        trust_environment=config.job_trust_environment == "same-uid",
    )

    def job_uid_of(facts: Facts) -> str:
        return resolve(facts, resolvers)

    usage = HostProcesses(
        procfs,
        cgroupfs,
        topology,
        job_uid_of,
        users.name,
        GPU_VARIABLES,
        OWNER_VARIABLES,
        records,
    )
    pods.live = usage.jobs
    log.info("CPU time of processes: %s", usage.method)
    nvml = NvmlMeter(config.path_sysfs, foreign=not procfs.is_own(), must_restart=must_restart)
    # GPUs first: what holds them up must not come between CPU energy and CPU time.
    meters: list[Meter] = [
        OwnThread(nvml),
        OwnThread(HwmonMeter(config.path_sysfs, procfs, topology)),
    ]
    rapl = _rapl(config, procfs)
    if rapl is not None:
        meters.append(rapl)
    measured = measures_packages(config.path_sysfs) or (rapl is not None and _measures_cpu(rapl))
    if config.cpu_estimate == "auto" and not measured:
        estimate = EstimateMeter(procfs, topology, config.cpu_tdp)
        for package, power in estimate.power.items():
            log.warning(
                "package-%d is ESTIMATED, not measured: %s (source=estimate; switch off with "
                "--cpu.estimate=off)",
                package,
                power.basis,
            )
        meters.append(estimate)
    if not meters:
        log.warning("nothing here can be measured; `jobwatt doctor` tells why")
    return Parts(meters, usage, len(topology.package_of), owners, pods=pods)


def _pod_jobs(config: Config) -> PodJobs:
    """Return the jobs of pods, followed from now on where somebody tells of them."""
    from jobwatt.kubernetes.access import Access, find_access  # noqa: PLC0415 - see below

    access = find_access(config, os.environ)
    if not isinstance(access, Access):
        if access:
            level = logging.INFO if config.kubernetes_metadata == "off" else logging.WARNING
            log.log(level, "pods are known by their uid alone: %s", access)
        return PodJobs()
    # What talks to Kubernetes is loaded where there is one.
    from jobwatt.kubernetes.follow import follow_pods  # noqa: PLC0415
    from jobwatt.kubernetes.pod_resources import PodResources  # noqa: PLC0415

    source = follow_pods(access, config.pod_rules)
    devices = PodResources(config.pod_resources)
    source.start()
    devices.start()
    log.info("pods are told by %s", access.endpoint.url)
    return PodJobs(source, devices)


def _resolvers(
    config: Config,
    procfs: Procfs,
    cgroupfs: Cgroupfs,
    users: UserNames,
    owners: JobOwners,
    files: JobFiles,
    pods: PodJobs,
) -> Sequence[Resolver]:
    """Return who is asked for the owner of a process, in this order (design: metric contract)."""
    cgroups = CgroupOwners(cgroupfs)
    titles = StepTitles(cgroupfs, procfs)

    def id_of_sluid(controller: str, parts: Sequence[str]) -> str | None:
        return files.id_of_sluid(parts[-1]) or titles.id_of_sluid(controller, parts)

    schedulers = (
        slurm.SlurmScheduler(id_of_sluid, files.restarts),
        KubernetesScheduler(),
        pbs.PbsScheduler(),
    )
    by_environment: list[Resolver] = [
        lsf.LsfResolver(),
        htcondor.HtcondorResolver(JobAds(config.path_rootfs).id_of_ad),
        flux.FluxResolver(),
    ]
    if config.job_trust_environment == "same-uid":
        by_cgroup = SchedulerResolver(schedulers, cgroups.uid, owners.vouch, job_of=pods.job_of)
        by_environment[:0] = [slurm.SlurmEnvironment(files.restarts), pbs.PbsEnvironment()]
    else:
        by_cgroup = SchedulerResolver(schedulers, cgroups.uid, job_of=pods.job_of)
    return (
        by_cgroup,
        *(OwnedResolver(resolver, owners, root_gives_way=True) for resolver in by_environment),
        OwnedResolver(declared.DeclaredResolver(), owners, root_gives_way=False),
        RunCgroupResolver(cgroups.uid, owners),
        ContainerResolver(cgroups.maker, owners.admit_made),
        SystemdResolver(users.name, cgroups.maker),
    )


def _cgroupfs(config: Config, procfs: Procfs) -> Cgroupfs:
    """Find the cgroup trees, and our own place in them where a namespace hides it."""
    try:
        hidden = any(path.startswith("/..") for path in procfs.read_cgroup(1).values())
    except ReadError:
        hidden = False
    found = find_cgroupfs(config.cgroupfs, os.getpid() if hidden else None)
    if hidden and not found.namespace_roots:
        log.warning(
            "the cgroups of other processes lie outside of our own namespace and cannot be found "
            "below %s: what comes and goes between two samples is nobody's",
            config.cgroupfs,
        )
    return found


def simulated_parts(scenario: str, seed: int) -> Parts:
    """Return the parts of a made-up node."""
    from jobwatt.simulation.clock import SimulatedClock  # noqa: PLC0415 - not for real nodes
    from jobwatt.simulation.meter import SimulatedMeter  # noqa: PLC0415
    from jobwatt.simulation.node import SimulatedNode  # noqa: PLC0415
    from jobwatt.simulation.scenarios import SCENARIOS  # noqa: PLC0415
    from jobwatt.simulation.usage import SimulatedUsage  # noqa: PLC0415

    chosen = SCENARIOS[scenario]
    clock = SimulatedClock(chosen.past_seconds)
    node = SimulatedNode(chosen, clock.monotonic_ns, seed)
    return Parts(
        [SimulatedMeter(node)],
        SimulatedUsage(node, clock.wall),
        chosen.hardware.threads,
        clock=clock.monotonic_ns,
        wall=clock.wall,
        catch_up=clock.catch_up,
    )


def _rapl(config: Config, procfs: Procfs) -> RaplMeter | None:
    try:
        meter = RaplMeter(config.path_sysfs, procfs.read_cpu_model())
    except Absent:
        log.info("no RAPL on this machine (%s/class/powercap is absent)", config.path_sysfs)
        return None
    except ReadError as error:
        log.warning("RAPL: %s", error)
        return None
    if not meter.has_zones:
        log.info("no RAPL zones below %s/class/powercap", config.path_sysfs)
        return None
    return meter


def _measures_cpu(meter: RaplMeter) -> bool:
    """Whether at least one package answers; one that fails is asked again, it may be about to."""
    for _ in range(ATTEMPTS):
        reports = meter.read(time.monotonic_ns())
        domains = (r.counter.domain for report in reports for r in report.readings)
        if any(domain is not None and domain.domain == "package" for domain in domains):
            return True
        if not any(fault.reason == Failed.reason for report in reports for fault in report.faults):
            return False
        time.sleep(ATTEMPT_SECONDS)
    return False


def make_sampler(config: Config, parts: Parts, store: Store | None = None) -> Sampler:
    """Return a sampler of these parts under the configured rules, going on from `store`."""
    ledger = Ledger(
        SeriesRules(
            least_uj=round(config.process_min_joules * UJ),
            most=config.process_max,
            linger_ns=round(config.process_linger * NS),
        ),
        JobBook(round(config.job_linger * NS), config.budgets, parts.owners),
    )
    ledger.dropped["process_cap"] = 0
    accountant = Accountant(ledger, config.idle_power, DramPolicy(config.dram_policy))
    node = NodeInfo(
        version=jobwatt.__version__,
        cpus=parts.cpus,
        grid_zone=config.grid_zone,
        cpu_time_method=parts.usage.method,
        interval_seconds=config.sample_interval,
        started=parts.wall(),
    )
    boot_id = Procfs(config.path_procfs).read_boot_id()
    if store is not None:
        try:
            accountant.restore(store.rows, boot_id, parts.clock(), parts.wall())
            if parts.pods is not None:
                parts.pods.restore(store.rows, same_boot=accountant.same_boot)
            if accountant.same_boot:
                parts.usage.restore(store.rows)
        except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError) as error:
            log.warning("the state of an earlier run cannot be read: beginning at 0")
            store.discard(f"{type(error).__name__}: {error}")
            return make_sampler(config, parts, store)
    return Sampler(
        parts.meters,
        parts.usage,
        accountant,
        node,
        clock=parts.clock,
        wall=parts.wall,
        resident_bytes=_resident_bytes,
        store=store,
        boot_id=boot_id,
        kept=parts.pods.dump if parts.pods is not None else dict,
    )


def owner_of_child(config: Config, environment: Mapping[str, str]) -> str:
    """Return the job of a child that this process would start with an environment.

    Raises:
        ReadError: our own place cannot be read.
    """
    procfs = Procfs(config.path_procfs)
    cgroupfs = _cgroupfs(config, procfs)
    users = UserNames(config.path_rootfs)
    files = JobFiles(config.path_rootfs / str(config.job_directory).lstrip("/"), users.name)
    owners = JobOwners(config.job_max_per_user, users.name, files.uid_of)
    known = {name: environment[name] for name in OWNER_VARIABLES if name in environment}
    facts = Facts(cgroupfs.resolve(procfs.read_cgroup(os.getpid())), os.getuid(), known)
    resolvers = _resolvers(config, procfs, cgroupfs, users, owners, files, PodJobs())
    return resolve(facts, resolvers)


def run_cgroup(config: Config, run: str) -> RunCgroup | None:
    """Return a new cgroup for one run of a job; None where this user may not make one."""
    procfs = Procfs(config.path_procfs)
    return make_run_cgroup(procfs, _cgroupfs(config, procfs), run)


def local_sampler(config: Config) -> Sampler:
    """Return a sampler of this machine, for tools that measure by themselves."""
    return make_sampler(config, host_parts(config))


def serve(config: Config, parts: Parts, *, keep_state: bool = True) -> None:
    """Sample and answer until SIGTERM or SIGINT.

    Args:
        config: all settings.
        parts: what to sample.
        keep_state: whether the accounts outlive the program.

    Raises:
        RunError: the address cannot be listened on, or the state is another exporter's.
        UsageError: the web configuration is wrong.
    """
    # What serves is loaded by those that serve.
    from jobwatt.exposition.routes import Routes  # noqa: PLC0415
    from jobwatt.exposition.server import Server  # noqa: PLC0415
    from jobwatt.exposition.serving import log_address, stop_event, web_config  # noqa: PLC0415

    web = web_config(config)
    _allow_many_files()
    store = Store(config.state_directory) if keep_state else None
    sampler = make_sampler(config, parts, store)
    routes = Routes(lambda: sampler.snapshot, config.web_telemetry_path, config.sample_interval)
    server = Server(config.web_listen_address, routes.answer, web)
    stop = stop_event()
    while not stop.is_set() and parts.catch_up():
        sampler.sample()
    server.start()
    log_address(server, config.web_telemetry_path)
    sampler.sample()
    if store is not None:
        store.start()
    # What lives now lives on: no later collection needs to look at it again.
    gc.collect()
    gc.freeze()
    thread = threading.Thread(target=_sample_on, args=(sampler, stop), name="sampler", daemon=True)
    thread.start()
    stop.wait()
    log.info("stopping")
    thread.join(timeout=5)
    server.stop()
    if store is not None:
        store.close()


def _sample_on(sampler: Sampler, stop: threading.Event) -> None:
    """Sample until told to stop; an error nobody foresaw ends the program, not just the thread."""
    try:
        sampler.run(stop)
    except Exception:
        log.exception("sampling failed; please report this")
        os._exit(1)


def _allow_many_files() -> None:
    """Raise the limit of open files to what is allowed: one is kept for each cgroup."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _resident_bytes() -> int:
    try:
        return int(read_text(Path("/proc/self/statm")).split()[1]) * resource.getpagesize()
    except (ReadError, IndexError, ValueError):
        return 0
