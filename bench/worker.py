"""The process in which one library does one workload; talks to `processes.Worker` over its pipes.

Commands and replies are pickles: ("first", None) in, ("ok", seconds) out.  Whatever the library
itself prints goes to standard error.
"""

import ctypes
import importlib
import os
import pickle
import sys
import time
import traceback
from typing import Any

from bench.inputs import make_inputs
from bench.peers import Run


def main() -> None:
    """Serve until the other side closes the pipe."""
    channel = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    _offer_as_first_victim()
    task = _Task()
    while True:
        try:
            command, argument = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            reply = ("ok", getattr(task, command)(argument))
        except ImportError as missing:
            reply = ("missing", str(missing))
        except Exception as failure:  # whatever a library raises is a result, told by name
            traceback.print_exc()
            reply = ("error", traceback.format_exception_only(failure)[0].splitlines()[0])
        pickle.dump(reply, channel)
        channel.flush()


class _Task:
    """What the commands do; those that run something take the number of a run, None: the first."""

    def __init__(self) -> None:
        self.runs: list[Run] = []

    def prepare(self, argument: Any) -> dict[str, Any]:
        """Import the adapter and make one more run ready; what the adapter says of itself."""
        adapter_name, workload, dtype = argument
        adapter = importlib.import_module(adapter_name)
        about = {"version": adapter.version(), "computes_in": adapter.computes_in(dtype)}
        reason = adapter.supports(workload, dtype)
        if reason is not None:
            return about | {"unsupported": reason}
        inputs = make_inputs(workload, dtype)
        self.data_bytes = inputs.data_bytes
        self.runs.append(adapter.prepare(workload, inputs, dtype))
        return about

    def first(self, which: int | None) -> tuple[float, dict[str, Any]]:
        """Seconds of the first call, compilation and all, and its answer."""
        run = self.runs[which or 0]
        begin = time.perf_counter()
        result = run.call()
        seconds = time.perf_counter() - begin
        return seconds, run.answer(result)

    def call(self, which: int | None) -> float:
        """Seconds of one more call."""
        run = self.runs[which or 0]
        begin = time.perf_counter()
        result = run.call()
        seconds = time.perf_counter() - begin
        del result
        return seconds

    def memory(self, which: int | None) -> float | None:
        """Peak of one more call, the data included, as a multiple of the data; None unknown.

        The data are with the library already: what the call adds is the rise of the resident set
        to its high-water mark, which Linux alone lets a process reset.
        """
        try:
            ctypes.CDLL(None).malloc_trim(0)
            with open("/proc/self/clear_refs", "w") as reset:
                reset.write("5")
            before = _status("VmRSS")
        except (AttributeError, OSError):
            return None
        result = self.runs[which or 0].call()
        rise = _status("VmHWM") - before
        del result
        return (rise + self.data_bytes) / self.data_bytes


def _status(name: str) -> int:
    """A line of /proc/self/status in bytes."""
    with open("/proc/self/status") as lines:
        found = next(line for line in lines if line.startswith(name + ":"))
    return 1024 * int(found.split()[1])


def _offer_as_first_victim() -> None:
    """Should memory run out, a worker is to be killed and not the runner."""
    try:
        with open("/proc/self/oom_score_adj", "w") as score:
            score.write("1000")
    except OSError:  # another system
        return


if __name__ == "__main__":
    main()
