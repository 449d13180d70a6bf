"""The runner's end of a worker, and the environment that every measured process gets."""

import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from bench.workloads import Workload

ROOT = Path(__file__).parents[1]


class WorkerFailed(Exception):
    """The library is missing, raised, died or took too long: the message says which."""


def environment(dtype: str = "float32", **more: str) -> dict[str, str]:
    """On the CPU, in this dtype, with no compiled programs left over from another run."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("JAX_COMPILATION_CACHE", "JAX_PERSISTENT_CACHE"))
    }
    path = os.pathsep.join(filter(None, (str(ROOT), inherited.get("PYTHONPATH"))))
    x64 = "1" if dtype == "float64" else "0"
    return inherited | {"PYTHONPATH": path, "JAX_PLATFORMS": "cpu", "JAX_ENABLE_X64": x64} | more


def output_of(arguments: list[str], dtype: str = "float32", **variables: str) -> str:
    """The last line that a Python process of its own prints.

    Raises:
        RuntimeError: it failed; the message has the end of what it complained of.
    """
    done = subprocess.run(
        [sys.executable, *arguments],
        env=environment(dtype, **variables),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)} failed: {done.stderr.strip()[-500:]}")
    return done.stdout.strip().splitlines()[-1]


class Worker:
    """A process of its own for one library; not forked, so that no thread is shared."""

    def __init__(self, adapter: str, workload: Workload, dtype: str, limit: float) -> None:
        self.limit = limit
        self._errors = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment(dtype),
            cwd=ROOT,
            start_new_session=True,  # with the processes that a library starts it is one group
        )
        try:
            self.about: dict[str, Any] = self.ask("prepare", (adapter, workload, dtype))
        except WorkerFailed:
            self.close()
            raise

    def ask(self, command: str, argument: Any = None) -> Any:
        """The reply to a command, or `WorkerFailed`."""
        assert self._process.stdin is not None and self._process.stdout is not None
        late = threading.Event()

        def stop() -> None:
            late.set()
            self._kill()

        timer = threading.Timer(self.limit, stop)
        timer.start()
        try:
            pickle.dump((command, argument), self._process.stdin)
            self._process.stdin.flush()
            outcome, value = pickle.load(self._process.stdout)
        except (EOFError, OSError, pickle.UnpicklingError):
            status = self._process.wait()
            if late.is_set():
                raise WorkerFailed(f"took more than {self.limit:g} s") from None
            raise WorkerFailed(f"died with status {status}: {self._last_error()}") from None
        finally:
            timer.cancel()
        if outcome == "missing":
            raise WorkerFailed(f"not installed: {value}")
        if outcome == "error":
            raise WorkerFailed(f"raised {value}")
        return value

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._errors):
            try:
                pipe.close()
            except BrokenPipeError:  # what was left to flush has no reader
                continue

    def _kill(self) -> None:
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:  # all have ended
            return

    def _last_error(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "no message"
