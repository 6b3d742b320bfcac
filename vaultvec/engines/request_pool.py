"""Threads for requests to a server, which nobody waits for: Ctrl-C ends a run at once, whatever is still in flight."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

T = TypeVar("T")


class RequestPool(Executor):
    """`count` daemon threads. ThreadPoolExecutor's are joined at exit, however long a server takes to answer."""

    def __init__(self, count: int) -> None:
        self._jobs: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._count = count
        for _ in range(count):
            Thread(target=self._serve, name="request", daemon=True).start()

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Queue a call."""
        future: Future[T] = Future()
        self._jobs.put((future, partial(fn, *args, **kwargs)))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let the threads end after what they are doing. Nothing is waited for: who wants a result has asked for it."""
        del wait, cancel_futures
        for _ in range(self._count):
            self._jobs.put(None)

    def _serve(self) -> None:
        while job := self._jobs.get():
            future, call = job
            if not future.set_running_or_notify_cancel():
                continue
            try:
                result = call()
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)
