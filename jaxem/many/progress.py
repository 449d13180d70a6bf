"""A bar for many fits: members done, best so far."""

from types import TracebackType
from typing import Any, Self


class Bar:
    """A tqdm bar, to be handed to `fit_batch` or `search` as `progress`.

    Raises:
        ModuleNotFoundError: tqdm is not installed.
    """

    def __init__(self) -> None:
        try:
            from tqdm.auto import tqdm
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError("a bar needs tqdm: pip install 'jaxem[cli]'.") from error
        self._bar: Any = tqdm(unit="fit", dynamic_ncols=True)

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
