"""The writer in a process of its own, for runs that write much.

Chroma holds Python's global lock through every write (measured with chromadb 1.5.9, about 2 ms a row): in one process
neither the reader nor what feeds the model runs meanwhile. The ledger is the queue between the two, so the process
needs to be told nothing but where it lies. The task is its first line of input; `finish` asks it to write the rest;
the end of its input, also when the parent was killed, stops it at the next commit. Its outcome is one line of JSON.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

from vaultvec import errors
from vaultvec.errors import LedgerError, VaultvecError
from vaultvec.ledger import Ledger
from vaultvec.memory import peak_rss_mb
from vaultvec.stages.writing import Writer, WriterTask

PAYS_FROM = 200  # notes to read, or texts or rows that wait; below, starting a process costs more than it brings
_CRASHES = {"SIGSEGV", "SIGABRT", "SIGBUS", "SIGILL", "SIGFPE"}  # Chroma's own doing; SIGKILL is another's
_CRASHES_WINDOWS = {0xC0000005, 0xC0000409, 0xC000001D}  # access violation, fail-fast, illegal instruction
_PACKAGE = Path(__file__).resolve().parents[2]
_CODE = "from vaultvec.stages.writer_process import child; child()"


class WriterProcess:
    """Does what `Writer` does, elsewhere. Started when rows are coming, so that a run without any pays nothing."""

    def __init__(self, task: WriterTask) -> None:
        self.task = task
        self.mended = 0
        self.damage = ""
        self.peak_rss_mb = 0.0
        self._error: BaseException | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._ended = False
        self._asked_to_finish = False

    @property
    def error(self) -> BaseException | None:
        """What went wrong there."""
        if self._process and not self._ended and self._process.poll() is not None:
            self._collect(self._process)
        return self._error

    def start(self) -> None:
        """Nothing yet: `wake` starts the process."""

    def wake(self) -> None:
        """Rows are coming; the process looks for them by itself."""
        if not self._process:
            self._process = self._spawn()

    def finish(self, waiting: Callable[[], None]) -> None:
        """Write the rest and end; `waiting` is called now and then meanwhile. Raises what went wrong there."""
        if not self._process and not (self.task.torn or self.task.damage or self._anything_waits()):
            return
        self.wake()
        self._asked_to_finish = True
        self._ask_to_finish()
        while not self._ended and self._process:
            waiting()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(0.1)
                self._collect(self._process)
        if self._error:
            raise self._error

    def stop(self, seconds: float) -> None:
        """Let it end at its next commit; it is killed when that takes too long: the ledger knows what is missing."""
        process = self._process
        if not process or self._ended:
            return
        self._close_input(process)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._read_outcome(process)

    def _anything_waits(self) -> bool:
        with Ledger(self.task.ledger, readonly=True) as ledger:
            return any(ledger.outbox_size(row) for row in self.task.models)

    def _spawn(self) -> subprocess.Popen[bytes]:
        path = os.pathsep.join([str(_PACKAGE), *filter(None, [os.environ.get("PYTHONPATH")])])
        command = [sys.executable, "-P", "-c", _CODE]
        variables = {**os.environ, "PYTHONPATH": path}
        if sys.platform == "win32":  # Ctrl-C is the parent's to hear: it stops its writer in good order
            group, session = subprocess.CREATE_NEW_PROCESS_GROUP, False
        else:
            group, session = 0, True
        process = subprocess.Popen(
            command, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, creationflags=group,
            start_new_session=session,
        )  # fmt: skip
        _send(process, json.dumps(asdict(self.task), default=str))
        return process

    def _ask_to_finish(self) -> None:
        if self._process:
            _send(self._process, "finish")

    def _collect(self, process: subprocess.Popen[bytes]) -> None:
        """The process has ended: read how. One that Chroma brought down is started once more, with Chroma made anew."""
        code = process.returncode
        self._close_input(process)
        if self._read_outcome(process):
            return
        if _crashed(code) and not self.task.damage:
            self.task = replace(self.task, damage=f"Chroma brought its process down ({_ending(code)})")
            self._ended = False
            self._process = self._spawn()
            if self._asked_to_finish:
                self._ask_to_finish()
            return
        self._error = LedgerError(
            f"the process that writes Chroma ended early ({_ending(code)}); run it again: what was done is kept. If it "
            "happens again: python main.py rebuild"
        )

    def _read_outcome(self, process: subprocess.Popen[bytes]) -> bool:
        """What the process said at its end, if it could."""
        self._ended = True
        assert process.stdout
        with process.stdout as out:
            lines = out.read().splitlines()
        try:
            outcome = json.loads(lines[-1])
        except (IndexError, ValueError):
            return False
        self.mended, self.damage = outcome["mended"], outcome["damage"]
        self.peak_rss_mb = outcome["peak_rss_mb"]
        if outcome["error"]:
            kind = getattr(errors, outcome["kind"], None)
            known = isinstance(kind, type) and issubclass(kind, VaultvecError)
            self._error = kind(outcome["error"]) if known and kind else LedgerError(
                f"writing Chroma failed ({outcome['kind']}: {outcome['error']}); run: python main.py doctor"
            )  # fmt: skip
        return True

    def _close_input(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin
        with suppress(OSError):
            process.stdin.close()


def _send(process: subprocess.Popen[bytes], line: str) -> None:
    assert process.stdin
    with suppress(OSError):  # it has ended; its return code says why
        process.stdin.write(line.encode() + b"\n")
        process.stdin.flush()


def _crashed(code: int) -> bool:
    return code in _CRASHES_WINDOWS or _ending(code) in _CRASHES


def _ending(code: int) -> str:
    """A return code in words."""
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"exit code {code}"


# ── in the process itself ─────────────────────────────────────────────────────────────────────────────────────────────


def child() -> None:
    """Its whole life."""
    received = _lines()
    task = json.loads(next(received))
    writer = Writer(WriterTask(**{**task, "ledger": Path(task["ledger"]), "chroma": Path(task["chroma"])}))
    threading.Thread(target=_listen, args=(received, writer), daemon=True).start()
    writer.run()
    error = writer.error
    outcome = {
        "error": str(error) if error else "", "kind": type(error).__name__, "mended": writer.mended,
        "damage": writer.damage, "peak_rss_mb": peak_rss_mb(),
    }  # fmt: skip
    with suppress(OSError):  # nobody listens any more
        os.write(1, json.dumps(outcome).encode() + b"\n")


def _lines() -> Iterator[str]:
    """Lines of standard input, unbuffered: a thread that waits in Python's buffered reader disturbs the way out."""
    rest = b""
    while block := os.read(0, 65536):
        *whole, rest = (rest + block).split(b"\n")
        yield from (line.decode() for line in whole)


def _listen(received: Iterator[str], writer: Writer) -> None:
    for line in received:
        if line == "finish":
            writer.end()
    writer.halt()
