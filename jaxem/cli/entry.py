"""The entry point: it owns the process, so it alone configures JAX."""

import contextlib
import os
import sys
import threading
from argparse import Namespace
from pathlib import Path
from typing import Any

from jaxem.cli.arguments import parse

BAD_INPUT = 2
INTERRUPTED = 130  # 128 + SIGINT, as shells have it
BROKEN_PIPE = 141  # 128 + SIGPIPE


def main(argv: list[str] | None = None) -> int:
    """Run the command line (default: that of the process) and return its exit status.

    Turns on 64-bit JAX unless `--dtype float32` is asked for, and JAX's persistent compilation
    cache: both for the whole process.
    """
    try:
        return _run(parse(argv))
    except KeyboardInterrupt:
        print("jaxem: interrupted", file=sys.stderr)
        _leave_workers()
        return INTERRUPTED
    except BrokenPipeError:  # the reader of standard output, such as `head`, has had enough
        _drop_output()
        return BROKEN_PIPE
    except OSError as error:
        if error.filename is None:  # standard output may be what failed
            _drop_output()
        place = "" if error.filename is None else f"{os.fspath(error.filename)}: "
        return _refuse(f"{place}{error.strerror or error}")
    except (ValueError, ModuleNotFoundError) as error:
        return _refuse(str(error))


def _run(arguments: Namespace) -> int:
    # Not at the top: importing JAX takes longer than parsing, and Ctrl-C must be caught meanwhile.
    import jax

    jax.config.update("jax_enable_x64", getattr(arguments, "dtype", "float64") == "float64")
    _cache_compilations(jax)
    from jaxem.cli import certify, fit, predict, sample

    commands = {"fit": fit, "predict": predict, "sample": sample, "certify": certify}
    return commands[arguments.command].run(arguments)


def _cache_compilations(jax: Any) -> None:
    """Keep compiled programs in the user's cache directory; do without where that fails."""
    if jax.config.jax_compilation_cache_dir is not None:
        return  # the user has chosen, through JAX's own variable
    try:
        home = os.environ.get("XDG_CACHE_HOME", "")
        base = Path(home) if os.path.isabs(home) else Path.home() / ".cache"
        directory = base / "jaxem" / "compiled"
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        return
    if os.access(directory, os.W_OK | os.X_OK):
        jax.config.update("jax_compilation_cache_dir", str(directory))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _leave_workers() -> None:
    """End the process here if fits are being computed: they hear of no interrupt.

    Python would wait for their threads at its end, until every fit of their chunk is done.
    """
    from jaxem.many.chunks import WORKER

    if any(thread.name.startswith(WORKER) for thread in threading.enumerate()):
        sys.stderr.flush()
        os._exit(INTERRUPTED)


def _drop_output() -> None:
    """Let what is still buffered go nowhere, or Python would complain of it at its end."""
    with contextlib.suppress(OSError):  # a test's standard output is no file
        standard_output = sys.stdout.fileno()
        os.dup2(os.open(os.devnull, os.O_WRONLY), standard_output)


def _refuse(message: str) -> int:
    print(f"jaxem: error: {' '.join(message.split())}", file=sys.stderr)
    return BAD_INPUT
