"""A program that uses galleries in many threads and starts processes beside them. `python fork_children.py GALLERY METHOD ROUNDS`

It prints one line for each process that gave another answer or none.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
import time
from typing import Any

import numpy as np
import torch

import mmretrieve as mm
from mmretrieve.gallery.view import SearchOptions

SECONDS = 30.0  # for one process on a busy machine; one that hangs takes more
Answer = list[tuple[str, ...]]


def queries(dim: int) -> list[mm.Composition]:
    rows = np.random.default_rng(1).normal(size=(32, dim))
    return [mm.Composition(("query",), (row / np.linalg.norm(row))[None].astype(np.float32), (1.0,)) for row in rows]


def answer(gallery: mm.Gallery) -> Answer:
    """What many threads of OpenMP and a filter find."""
    torch.ones(400, 400) @ torch.ones(400, 400)
    many = gallery.search_many(queries(gallery.dim), [SearchOptions(5)] * 32)
    filtered = gallery.search(queries(gallery.dim)[0], 5, where=f"number < {np.random.randint(50, 10**6)}")
    assert len(filtered) == 5
    return [gallery.ids[-3:], *(ranking.ids for ranking in many)]


def send_answer(gallery: mm.Gallery, queue: Any) -> None:
    queue.put(answer(gallery))


def fork(gallery: mm.Gallery) -> Answer | None:
    """The answer of a process as servers that load before they fork have them."""
    receiver, sender = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(sender, repr(answer(gallery)).encode())
            mm.Gallery.open(gallery.path, device="cpu").build_index("IVF4,SQ8")
        finally:
            os._exit(0)
    os.close(sender)
    ends, result = time.monotonic() + SECONDS, (0, 0)
    while result == (0, 0) and time.monotonic() < ends:
        time.sleep(0.01)
        result = os.waitpid(child, os.WNOHANG)
    if result == (0, 0):
        os.kill(child, 9)
        os.waitpid(child, 0)
        return None
    with os.fdopen(receiver) as file:
        return eval(file.read() or "None")


def start(gallery: mm.Gallery, method: str) -> Answer | None:
    """The answer of a process that `multiprocessing` starts, as the workers of a DataLoader."""
    context: Any = multiprocessing.get_context(method)
    queue = context.Queue()
    process = context.Process(target=send_answer, args=(gallery, queue), daemon=True)
    process.start()
    try:
        result: Answer = queue.get(timeout=SECONDS)
        process.join(SECONDS)
    except Exception:
        process.kill()
        return None
    return result


def main(path: str, method: str, rounds: int) -> None:
    torch.set_num_threads(3)
    gallery = mm.Gallery.open(path, device="cpu")
    expected, stop = answer(gallery), threading.Event()

    def search() -> None:
        while not stop.is_set():
            answer(gallery)
            answer(mm.Gallery.open(path, device="cpu"))
            time.sleep(0.01)

    threads = [threading.Thread(target=search, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(rounds):
        gallery.refresh()
        result = fork(gallery) if method == "os.fork" else start(gallery, method)
        if result != expected:
            sys.stdout.write(f"{number}: {'no answer' if result is None else 'another answer'}\n")
            sys.stdout.flush()
    stop.set()
    os._exit(0)  # without waiting for threads


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
