"""What a process holds at a moment: memory, threads, files and connections."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path

import psutil

from tests.soak.growth import COUNT, MEMORY, SIZE, Points, Rule


@dataclass(frozen=True)
class Sample:
    """Bytes, seconds of a processor, and counts; `peers` are the connections to each server."""

    process: str
    time: float
    rss: int
    pss: int
    uss: int
    cpu: float
    threads: int
    files: int
    status: int
    peers: Mapping[str, int]


@dataclass(frozen=True)
class Figure:
    """A figure of one process over the whole time, and when it counts as growing."""

    process: str
    name: str
    unit: str
    rule: Rule | None
    points: Points


@dataclass
class Sampler:
    """Samples processes; `servers` names those that they talk to, by port.

    Each sample is appended to a file too.
    """

    file: Path
    servers: Mapping[int, str]
    samples: list[Sample] = field(default_factory=list)

    def sample(self, name: str, pid: int, status: int) -> None:
        """Look at a process; `status` is the size of the largest one that it writes."""
        process = psutil.Process(pid)
        with process.oneshot():
            memory, cpu = process.memory_full_info(), process.cpu_times()
            sample = Sample(
                process=name,
                time=time.time(),
                rss=memory.rss,
                pss=memory.pss,
                uss=memory.uss,
                cpu=cpu.user + cpu.system,
                threads=process.num_threads(),
                files=process.num_fds(),
                status=status,
                peers=self._peers(process),
            )
        self.samples.append(sample)
        with self.file.open("a") as file:
            file.write(json.dumps(asdict(sample)) + "\n")

    @property
    def count(self) -> int:
        """How many samples there are of the process that has fewest."""
        return min(Counter(each.process for each in self.samples).values(), default=0)

    def figures(self) -> Iterator[Figure]:
        """All that can be told of each process."""
        for name in dict.fromkeys(each.process for each in self.samples):
            yield from _figures(name, [each for each in self.samples if each.process == name])

    def _peers(self, process: psutil.Process) -> Mapping[str, int]:
        """Connections that only one side has closed are among them."""
        remote = (each.raddr for each in process.net_connections())
        ports = [getattr(peer, "port", None) for peer in remote]  # a listener has none
        counted = Counter(self.servers.get(port, "others") for port in ports if port)
        return {name: counted[name] for name in sorted({*self.servers.values(), "others"})}


def _figures(process: str, samples: Sequence[Sample]) -> Iterator[Figure]:
    def figure(name: str, unit: str, rule: Rule | None, values: Sequence[float]) -> Figure:
        times = [each.time for each in samples]
        return Figure(process, name, unit, rule, list(zip(times, values, strict=True)))

    yield figure("RSS", "MiB", MEMORY, [each.rss for each in samples])
    yield figure("PSS", "MiB", MEMORY, [each.pss for each in samples])
    yield figure("USS", "MiB", MEMORY, [each.uss for each in samples])
    yield figure("threads", "", COUNT, [each.threads for each in samples])
    yield figure("file descriptors", "", COUNT, [each.files for each in samples])
    for peer in samples[0].peers:
        yield figure(f"connections: {peer}", "", COUNT, [each.peers[peer] for each in samples])
    yield figure("largest status", "KiB", SIZE, [each.status for each in samples])
    yield Figure(process, "CPU", "%", None, _shares(samples))


def _shares(samples: Sequence[Sample]) -> Points:
    """How much of a processor was used until each sample, in per cent."""
    return [
        (after.time, 100 * (after.cpu - before.cpu) / (after.time - before.time))
        for before, after in pairwise(samples)
    ]
