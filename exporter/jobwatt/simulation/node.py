"""The made-up node at work.

It lives in steps of a quarter of a second. Processes are born and die between steps; within one
everything goes on evenly, so that what is read depends on the time alone and not on how often, or
by whom, the node is looked at. It draws all its chance from one seeded generator: the same scenario
and seed live the same life.
"""

from __future__ import annotations

import time
from collections import Counter as Count
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

from jobwatt.attribution.apportion import apportion
from jobwatt.host.procfs import TICKS
from jobwatt.model import Component, Process
from jobwatt.simulation.blueprint import Job, Scenario, Workload
from jobwatt.simulation.gpus import SimulatedGpu
from jobwatt.simulation.parts import STEP_NS, Part
from jobwatt.simulation.runs import Run, run_at
from jobwatt.simulation.tasks import Context, Task, stray
from jobwatt.units import NS

__all__ = ["SimulatedNode"]

USABLE = 0.99
"""The part of a package's time that tasks get; the rest goes to interrupts and idle gaps."""

UPTIME_SECONDS = 3 * 86400
"""How long the machine has been running when the simulation starts."""

PID_MOST = 4_194_304
PID_AFTER_WRAP = 300
PID_GAP = 8.0
"""pids as Linux gives them out; between two that are told about, others came and went."""

SETTLING_SECONDS = 30.0
"""A process reaches its memory after about so long."""


@dataclass(slots=True, eq=False)
class _Slot:
    """A place in which one process of a workload lives, and after it the next.

    `number` counts the places of the workload.
    """

    workload: Workload
    number: int
    due_ns: int
    task: Task | None = None
    course: _Course | None = None


@dataclass(slots=True, eq=False)
class _Course:
    """A job, its run that goes on now, and the places of its processes."""

    job: Job
    slots: list[_Slot]
    run: Run | None = None


@dataclass(frozen=True, slots=True)
class _Demand:
    """CPUs that the tasks ask for in a step: each, and in sum by package (None: any)."""

    tasks: list[tuple[Task, float]]
    cpus: dict[int | None, float]


class SimulatedNode:
    """A node that follows a monotonic clock lazily: it catches up whenever it is looked at.

    Attributes:
        scenario: what it is and does.
        parts: what spends energy: packages in order, each with its memory, then GPUs.
        gpus: in the driver's order.
    """

    def __init__(
        self, scenario: Scenario, clock: Callable[[], int] = time.monotonic_ns, seed: int = 1
    ) -> None:
        self.scenario = scenario
        self._clock = clock
        self._random = Random(seed)  # noqa: S311 - made-up numbers, no secrets
        self._start_ns = clock()
        self._step_start_ns = 0
        self._now_ns = 0
        self._next_pid = 1
        packages = scenario.hardware.packages
        self._busy_ns = [0] * len(packages)
        self._step_busy_ns = [0] * len(packages)
        self._ended: list[Task] = []
        self._runs_ended: list[Run] = []
        parts = tuple(self._make_parts())
        self.gpus = tuple(
            SimulatedGpu(number, gpu, scenario.hardware.gpu_driver, self._random)
            for number, gpu in enumerate(scenario.hardware.gpus)
        )
        self.parts = (*parts, *(gpu.part for gpu in self.gpus))
        self._slots = [
            _Slot(workload, number, self._first_due_ns(workload))
            for workload in scenario.workloads
            for number in range(workload.count)
        ]
        self._courses = self._make_courses()
        self._begin_step()

    # --- what can be seen -----------------------------------------------------------------------

    @property
    def now_ns(self) -> int:
        """The node's age at the last look."""
        return self._now_ns

    def advance(self, to_ns: int | None = None) -> None:
        """Live on up to a time of the clock, by default now; a time that has passed is no news."""
        age_ns = (self._clock() if to_ns is None else to_ns) - self._start_ns
        while self._step_start_ns + STEP_NS <= age_ns:
            self._finish_step()
            self._begin_step()
        self._now_ns = max(self._now_ns, age_ns)

    @property
    def tasks(self) -> Iterator[Task]:
        """The processes that live now."""
        return (slot.task for slot in self._slots if slot.task is not None)

    def residents(self, gpu: int) -> list[Task]:
        """Return the processes that hold a context on a GPU now, by its number."""
        return [task for task in self.tasks if task.context is not None and task.context.gpu == gpu]

    def take_ended(self) -> list[Task]:
        """Return the processes that have ended since this was asked last."""
        ended, self._ended = self._ended, []
        return ended

    @property
    def runs(self) -> Iterator[Run]:
        """The runs of jobs that go on now."""
        return (course.run for course in self._courses if course.run is not None)

    def take_ended_runs(self) -> list[Run]:
        """Return the runs that have ended since this was asked last."""
        ended, self._runs_ended = self._runs_ended, []
        return ended

    def cpu_ns(self, task: Task) -> int:
        """Return the on-CPU time of a process up to now, or to its end."""
        return task.cpu_ns + self._so_far(task.step_ns)

    def age_seconds(self, task: Task) -> float:
        """Return how long a process has lived."""
        return (self._now_ns - task.born_ns) / NS

    def memory_bytes(self, task: Task) -> int:
        """Return the anonymous memory that a process holds now."""
        age = self.age_seconds(task)
        grown = 1.0 if task.ends_ns is None else min(1.0, 0.4 + 0.6 * age / SETTLING_SECONDS)
        return int(task.workload.memory_bytes * grown)

    def busy_ns(self, package: int) -> int:
        """Return the CPU time that a package has spent in tasks up to now."""
        return self._busy_ns[package] + self._so_far(self._step_busy_ns[package])

    def energy_uj(self, part: Part) -> int:
        """Return the energy of a part since power-on, up to now."""
        return part.energy_uj + self._so_far(part.step_uj)

    def kernel_ns(self, context: Context) -> int:
        """Return for how long a process's kernels have run up to now, or to its end."""
        return context.busy_ns + self._so_far(context.step_ns)

    def _so_far(self, step_amount: int) -> int:
        """Return how much of a step's amount is spent by now."""
        return step_amount * (self._now_ns - self._step_start_ns) // STEP_NS

    # --- beginnings -----------------------------------------------------------------------------

    def _make_parts(self) -> Iterator[Part]:
        for number, package in enumerate(self.scenario.hardware.packages):
            for component, prefix, power in (
                (Component.CPU, "package", package.power),
                (Component.DRAM, "dram", package.dram),
            ):
                if power is not None:
                    spent_uj = self._random.randrange(power.range_uj) if power.range_uj else 0
                    yield Part(f"{prefix}-{number}", component, number, power, spent_uj)

    def _first_due_ns(self, workload: Workload) -> int:
        pause = 0.0
        if workload.lifetime is not None:
            pause = self._random.uniform(0, workload.lifetime.pause_seconds[1])
        return int((workload.start_seconds + pause) * NS)

    def _make_courses(self) -> list[_Course]:
        courses: dict[int, _Course] = {}
        for slot in self._slots:
            if (job := slot.workload.job) is not None:
                slot.course = courses.setdefault(id(job), _Course(job, []))
                slot.course.slots.append(slot)
        return list(courses.values())

    def _bear(self, slot: _Slot) -> None:
        workload, born_ns = slot.workload, self._step_start_ns
        run = None if slot.course is None else slot.course.run
        ends = []
        if workload.lifetime is not None:
            ends.append(born_ns + int(self._random.uniform(*workload.lifetime.seconds) * NS))
        if run is not None and run.ends_seconds is not None:
            ends.append(int(run.ends_seconds * NS))
        ends_ns = min(ends, default=None)
        pid = self._give_pid()
        # What was there before the simulation started with the machine, in the order of pids.
        ticks = pid if born_ns == 0 else (UPTIME_SECONDS * NS + born_ns) * TICKS // NS
        bound = workload.package if len(self.scenario.hardware.packages) > 1 else None
        process = Process(
            pid=pid,
            start_ticks=ticks,
            comm=workload.comm,
            uid=workload.user.uid,
            user=workload.user.name,
            job_uid=workload.job_uid if run is None else run.job_uid,
            packages=None if bound is None else frozenset((bound,)),
            environment=self._environment(workload),
        )
        context = None
        if workload.kernels is not None:
            gpu = workload.gpus[slot.number % len(workload.gpus)]
            context = Context(gpu, workload.kernels)
        slot.task = Task(process, workload, born_ns, ends_ns, context)

    def _environment(self, workload: Workload) -> dict[str, str]:
        if not workload.gpus:
            return {}
        uuids = (self.gpus[number].info.uuid for number in workload.gpus)
        return {"CUDA_VISIBLE_DEVICES": ",".join(uuids)}

    def _give_pid(self) -> int:
        taken = {task.process.pid for task in self.tasks}
        while self._next_pid in taken or self._next_pid >= PID_MOST:
            self._next_pid = PID_AFTER_WRAP if self._next_pid >= PID_MOST else self._next_pid + 1
        pid = self._next_pid
        self._next_pid += 1 + int(self._random.expovariate(1 / PID_GAP))
        return pid

    # --- steps ----------------------------------------------------------------------------------

    def _begin_step(self) -> None:
        seconds = self._step_start_ns / NS
        self._schedule(seconds)
        for slot in self._slots:
            task = slot.task
            if task is None:
                if self._is_due(slot) and _has_work(slot.workload, seconds):
                    self._bear(slot)
            elif task.ends_ns is not None and task.ends_ns <= self._step_start_ns:
                self._bury(slot, task)
        self._work(self._demand(seconds))
        for number, gpu in enumerate(self.gpus):
            gpu.plan_step(self.residents(number), seconds, self._random)

    def _schedule(self, seconds: float) -> None:
        """Begin and end the runs of jobs."""
        for course in self._courses:
            if course.run is not None:
                ends_seconds = course.run.ends_seconds
                if ends_seconds is None or seconds < ends_seconds:
                    continue
                self._runs_ended.append(course.run)
            course.run = run_at(course.job, seconds)
            if course.run is not None:
                begins_ns = int(course.run.begins_seconds * NS)
                for slot in course.slots:
                    slot.due_ns = begins_ns + self._first_due_ns(slot.workload)

    def _is_due(self, slot: _Slot) -> bool:
        """Whether a process is to be born in a place that is free."""
        is_open = slot.course is None or slot.course.run is not None
        return is_open and slot.due_ns <= self._step_start_ns

    def _bury(self, slot: _Slot, task: Task) -> None:
        self._ended.append(task)
        lifetime = task.workload.lifetime
        slot.task = None
        if task.context is not None:
            self.gpus[task.context.gpu].leave(task, task.context, self._step_start_ns)
        if lifetime is not None:
            pause_ns = int(self._random.uniform(*lifetime.pause_seconds) * NS)
            slot.due_ns = self._step_start_ns + pause_ns

    def _demand(self, seconds: float) -> _Demand:
        tasks: list[tuple[Task, float]] = []
        cpus: dict[int | None, float] = {}
        levels: dict[int, float] = {}
        for task in self.tasks:
            workload = task.workload
            level = levels.get(id(workload))
            if level is None:
                level = levels[id(workload)] = workload.load.level(seconds)
            task.wobble = stray(task.wobble, self._random)
            wanted = workload.threads * min(1.0, max(0.0, level * (1 + task.wobble)))
            tasks.append((task, wanted))
            cpus[workload.package] = cpus.get(workload.package, 0.0) + wanted
        return _Demand(tasks, cpus)

    def _work(self, demand: _Demand) -> None:
        """Give the CPUs out for one step: pinned processes first, then the others into the gaps."""
        packages = self.scenario.hardware.packages
        free = [package.threads * USABLE for package in packages]
        scale: dict[int | None, float] = {}
        for number in range(len(packages)):
            wanted = demand.cpus.get(number, 0.0)
            scale[number] = min(1.0, free[number] / wanted) if wanted else 0.0
            free[number] -= wanted * scale[number]
        room, wanted = sum(free), demand.cpus.get(None, 0.0)
        scale[None] = min(1.0, room / wanted) if wanted else 0.0

        busy_ns: Count[int | None] = Count()
        heat: dict[int | None, Count[str]] = {}  # CPU time by where and job, in terms of power
        traffic: dict[int | None, Count[str]] = {}
        for task, cpus in demand.tasks:
            workload = task.workload
            where, job = workload.package, workload.job_uid
            task.step_ns = int(cpus * scale[where] * STEP_NS)
            busy_ns[where] += task.step_ns
            heat.setdefault(where, Count())[job] += int(task.step_ns * workload.intensity)
            traffic.setdefault(where, Count())[job] += int(task.step_ns * workload.traffic)

        # What may run anywhere spreads over the free CPUs.
        portions = apportion(busy_ns[None], [int(cpus * 1000) for cpus in free]) if room > 0 else []
        for number in range(len(packages)):
            portion = portions[number] if portions else 0
            self._step_busy_ns[number] = busy_ns[number] + portion
            ratio = portion / busy_ns[None] if portion else 0.0
            for part in self.parts:
                if part.package == number:
                    by_job = heat if part.component is Component.CPU else traffic
                    claims = Count(by_job.get(number, {}))
                    for job, time_ns in by_job.get(None, {}).items():
                        claims[job] += int(time_ns * ratio)
                    part.plan_step(claims, packages[number].threads * STEP_NS, self._random)

    def _finish_step(self) -> None:
        """Book what the step had planned."""
        for task in self.tasks:
            task.finish_step()
        for number, time_ns in enumerate(self._step_busy_ns):
            self._busy_ns[number] += time_ns
        for part in self.parts:
            part.finish_step()
        for gpu in self.gpus:
            gpu.finish_step()
        self._step_start_ns += STEP_NS


def _has_work(workload: Workload, seconds: float) -> bool:
    """Whether a process would be born at this age of the node."""
    return workload.lifetime is None or workload.load.level(seconds) > 0
