"""A bar for many fits: members done, best so far."""

from types import TracebackType
from typing import Any, Self


class Bar:
    """A tqdm bar, to be handed to `fit_batch` or `search` as `progress`.

    Args:
        total: how many fits there will be, where that is known before the first report.
        leave: whether the bar stays where it is when it is closed.

    Raises:
        ModuleNotFoundError: tqdm is not installed.
    """

    def __init__(self, total: int | None = None, *, leave: bool = True) -> None:
        try:
            from tqdm import auto
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError("a bar needs tqdm: pip install 'jaxem[cli]'.") from error
        self._bar: Any = auto.tqdm(total=total, unit="fit", leave=leave, dynamic_ncols=True)

    def __call__(self, done: int, total: int, best: float) -> None:
        """Show that so many of all fits are done, and the best objective so far."""
        self._bar.total = total
        self._bar.update(done - self._bar.n)
        self._bar.set_postfix_str(f"best {best:.8g}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.close()
