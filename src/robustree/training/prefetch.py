"""The images of the next part of a batch are read while the device works on this one."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, Self, TypeVar

Key = TypeVar("Key")
Made = TypeVar("Made")


class Prefetch(Generic[Key, Made]):
    """`make(key)`, called one ahead and always in the same thread of its own. What it raises is raised where its result
    is asked for; a result that nobody asks for is dropped."""

    def __init__(self, make: Callable[[Key], Made]):
        self._make = make
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="prefetch")
        self._ahead: tuple[Key, Future[Made]] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

    def get(self, key: Key, *, then: Key | None) -> Made:
        """make(key), which is under way or ready if it was the last `then`; make(then) is begun next."""
        ahead, self._ahead = self._ahead, None
        future = ahead[1] if ahead is not None and ahead[0] == key else self._pool.submit(self._make, key)
        made = future.result()
        if then is not None:
            self._ahead = then, self._pool.submit(self._make, then)
        return made
