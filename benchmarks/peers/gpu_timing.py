# SPDX-License-Identifier: Apache-2.0
"""Device time of a call on a GPU through PyTorch: medians, cold L2, no host time.

A call is captured into a CUDA graph several times, on buffers that no other call of the graph touches; the L2 is
overwritten before every replay, so that each call finds none of its data there; where asked for, it is then filled by
reads, so that no line of it must be written back first. A replay, or the calls themselves where they cannot be
captured, is queued behind a kernel that keeps the GPU busy until everything is enqueued.
"""

import dataclasses
import statistics
import time
from typing import Any, Callable, Sequence

import torch

FLUSH_BYTES = 256 << 20
MAX_BYTES = 16 << 30  # of all buffers of one row
GRAPH_CYCLES = 800_000  # of the GPU, about 0.4 ms, in which the host enqueues a graph
CALLS_CYCLES = 4_000_000  # in which it enqueues calls
# Of replays before those that are timed: an H100 has stretches of some 10 ms, mostly after heavy work such as the check
# of results, in which all takes a sixth longer.
SETTLE_SECONDS = 0.03


@dataclasses.dataclass
class Timing:
    us: float
    low_us: float
    method: str  # "graph" or "queue"


@dataclasses.dataclass
class Form:
    """How a row is timed: so many sets of buffers; clean: no line of L2 must be written back first; in a graph?"""

    row: dict[str, Any]
    num_sets: int
    clean: bool = False
    graph: bool = True


def num_sets(num_bytes: float) -> int:
    """How many buffers of this size a row rotates through."""
    return max(2, min(32, int(MAX_BYTES / max(num_bytes, 1.0) / 2), 2 + int((512 << 20) / max(num_bytes, 1.0))))


class Timer:
    def __init__(self, replays: int = 31) -> None:
        self.replays = replays
        self.flush = torch.empty(FLUSH_BYTES, dtype=torch.uint8, device="cuda")
        self.source = torch.ones(FLUSH_BYTES // 4, dtype=torch.float32, device="cuda")
        self.stream = torch.cuda.Stream()
        self.copy = 5e12  # bytes per second; copy_bytes_per_second() measures it

    def _elapsed(self, work: Callable[[], None], cycles: int = GRAPH_CYCLES, clean: bool = False) -> float:
        """Microseconds between two events around work. clean: an L2 that was emptied by reads."""
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        self.flush.fill_(1)
        if clean:
            self.source.sum()
        torch.cuda._sleep(cycles)
        start.record()
        work()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) * 1e3

    def _median(self, work: Callable[[], None], calls: int, cycles: int, clean: bool, method: str) -> Timing:
        until = time.monotonic() + SETTLE_SECONDS
        while time.monotonic() < until:
            self._elapsed(work, cycles, clean)
        times = sorted(self._elapsed(work, cycles, clean) / calls for _ in range(self.replays))
        return Timing(statistics.median(times), times[len(times) // 10], method)

    def time(
        self, call: Callable[[Any], Any], sets: Sequence[Any], clean: bool = False, graph: bool = True
    ) -> Timing:
        """Device time of call(set), averaged over the sets, median over the replays. graph: captured, if it can be."""
        with torch.cuda.stream(self.stream):
            for inputs in (*sets[:1], *sets[:1]):
                call(inputs)
            torch.cuda.synchronize()
            if not graph:
                return self._median(lambda: [call(inputs) for inputs in sets], len(sets), CALLS_CYCLES, clean, "queue")
            try:
                captured = torch.cuda.CUDAGraph()
                with torch.cuda.graph(captured, stream=self.stream):
                    for inputs in sets:
                        call(inputs)
            except Exception:  # something in it asks the device: time it as it is
                torch.cuda.synchronize()
                few = sets[:4]
                return self._median(lambda: [call(inputs) for inputs in few], len(few), CALLS_CYCLES, clean, "queue")
            for _ in range(2):
                captured.replay()
            return self._median(captured.replay, len(sets), GRAPH_CYCLES, clean, "graph")

    def time_forms(
        self, who: str, forms: Sequence[Form], sets: Sequence[Any], num_bytes: float,
        prepare: Callable[[], tuple[Callable[[Any], Any], str]], deadline: float,
    ) -> None:  # fmt: skip
        """Fills the forms' rows in for `who`, or says in all of them why not. prepare gives the call, which reads and
        writes num_bytes, and what is wrong with its result.
        """
        wrong = "out of time" if time.monotonic() > deadline else ""
        try:
            if not wrong:
                call, wrong = prepare()
            for form in () if wrong else forms:
                timing = self.time(call, sets[: form.num_sets], clean=form.clean, graph=form.graph)
                wrong = self.problem(timing, num_bytes)
                if wrong:
                    break
                row = form.row
                row["peers"][who], row["low_us"][who] = round(timing.us, 3), round(timing.low_us, 3)
                row["methods"][who] = timing.method
        except Exception as e:  # a peer that cannot do a row says why, whatever it raises
            wrong = f"{type(e).__name__}: {e}".splitlines()[0][:160]
        for form in forms if wrong else ():
            form.row["problems"][who] = wrong
            for field in ("peers", "low_us", "methods"):
                form.row[field].pop(who, None)

    def problem(self, timing: Timing, num_bytes: float) -> str:
        """What is wrong with a call that took so long and reads and writes so much; empty: nothing."""
        least = num_bytes / (1.5 * self.copy) * 1e6
        if timing.us >= least:
            return ""
        return f"took {timing.us:.1f} us where memory takes {least:.1f}: not all that it does was timed"

    def copy_bytes_per_second(self) -> float:
        """Bytes read and written by a copy of 1 GiB; the floor of every row is made with it."""
        source, target = (torch.empty(1 << 28, dtype=torch.float32, device="cuda") for _ in range(2))
        source.normal_()
        with torch.cuda.stream(self.stream):
            for _ in range(3):
                target.copy_(source)
            times = [self._elapsed(lambda: target.copy_(source)) for _ in range(self.replays)]
        self.copy = 2 * source.numel() * 4 / (statistics.median(times) * 1e-6)
        return self.copy
