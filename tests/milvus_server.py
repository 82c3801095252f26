"""A real Milvus server for tests: a `milvus-lite` process on 127.0.0.1, from the environment that `make test` builds."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

PROGRAM = Path(os.environ.get("MMRETRIEVE_MILVUS", Path(__file__).parents[1] / ".milvus")) / "bin" / "milvus-lite"
PATIENCE = 30.0


class LiteServer:
    """Can be killed and started again, at the same port and over the same files."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, _free_port()
        self.start()

    def start(self) -> None:
        place = ["--data-dir", str(self.folder / "data"), "--host", "127.0.0.1", "--port", str(self.port)]
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen([PROGRAM, "server", *place], stdout=log, stderr=log)
        started = time.monotonic()
        while not _answers(self.port):
            if self.process.poll() is not None or time.monotonic() - started > PATIENCE:
                raise RuntimeError(f"milvus-lite did not start: {(self.folder / 'server.log').read_text()[-2000:]}")
            time.sleep(0.05)

    def address(self, collection: str) -> str:
        return f"milvus://127.0.0.1:{self.port}/{collection}"

    def kill(self) -> None:
        """With −9, by its process id."""
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _answers(port: int) -> bool:
    with socket.socket() as asked:
        asked.settimeout(0.2)
        return asked.connect_ex(("127.0.0.1", port)) == 0
