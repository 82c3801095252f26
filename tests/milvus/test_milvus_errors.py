"""What a Milvus server can do wrong, and what is said of it: one line, soon, and never the password."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
from milvus_server import LiteServer

import mmretrieve as mm
from mmretrieve.cli.main import main
from mmretrieve.errors import GalleryError
from mmretrieve.milvus import client as servers
from mmretrieve.milvus.client import MilvusTimeoutError
from mmretrieve.milvus.transfer import push


class Strict(grpc.GenericRpcHandler):
    """Knows one token, and nothing else."""

    def __init__(self) -> None:
        self.tokens: list[str] = []

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        self.tokens += [str(value) for key, value in details.invocation_metadata if key == "authorization"]

        def refuse(_: bytes, context: grpc.ServicerContext) -> bytes:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "auth check failure, please check username and password are correct")
            return b""

        return grpc.unary_unary_rpc_method_handler(refuse)


@pytest.fixture
def strict() -> Iterator[tuple[str, Strict]]:
    handler = Strict()
    server = grpc.server(ThreadPoolExecutor(2), handlers=[handler])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}/shop", handler
    server.stop(None)


def test_a_wrong_token_is_named_and_not_shown(
    strict: tuple[str, Strict], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    location, handler = strict
    monkeypatch.setenv("MILVUS_TOKEN", "hidden-token")
    for address in (f"milvus://{location}", f"milvus://me:hidden-word@{location}"):
        assert main(["info", address]) == 1
        output = capsys.readouterr().err
        assert "the server does not accept this user or token; set MILVUS_TOKEN" in output
        assert (output.count("\n"), "hidden" in output) == (1, False)
    assert len(set(handler.tokens)) == 2


@pytest.mark.timed
def test_a_server_that_hangs_times_out(
    milvus: LiteServer, tmp_path: Path, filled: mm.Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert milvus.port
    own = LiteServer(tmp_path)
    try:
        push(filled.path, own.address("c"))
        collection = mm.open_gallery(own.address("c"))
        monkeypatch.setattr(servers, "CALL_SECONDS", 1.0)
        os.kill(own.process.pid, signal.SIGSTOP)
        started = time.monotonic()
        with pytest.raises(MilvusTimeoutError, match="does not answer in time; what it has stored is safe"):
            collection.refresh()
        assert time.monotonic() - started < 5
        os.kill(own.process.pid, signal.SIGCONT)
        collection.refresh()
        assert collection.ids == filled.ids
    finally:
        os.kill(own.process.pid, signal.SIGCONT)
        own.stop()


def test_without_pymilvus_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    with pytest.raises(GalleryError, match=r"needs pymilvus: pip install 'mmretrieve\[milvus\]'"):
        mm.open_gallery("milvus://127.0.0.1:1/c")


def test_a_foreign_collection_is_not_changed(milvus: LiteServer, filled: mm.Gallery) -> None:
    from pymilvus import MilvusClient

    MilvusClient(f"http://127.0.0.1:{milvus.port}").create_collection("theirs", dimension=8)
    for ask in (lambda: mm.open_gallery(milvus.address("theirs")), lambda: push(filled.path, milvus.address("theirs"))):
        with pytest.raises(GalleryError, match="this collection is not a gallery of mmretrieve"):
            ask()


def test_an_item_too_large_for_milvus_is_named_and_the_others_stay(milvus: LiteServer, filled: mm.Gallery) -> None:
    address = milvus.address("much")
    push(filled.path, address)
    filled.add_vectors(["long"], np.ones((1, filled.dim)), fields=[{"story": "word " * 20_000}])
    with pytest.raises(GalleryError, match=r"'long': its fields take .* bytes, Milvus stores at most 65535"):
        push(filled.path, address)
    assert len(mm.open_gallery(address)) == len(filled) - 1


@pytest.fixture
def filled(tmp_path: Path) -> mm.Gallery:
    maker = mm.EncoderIdentity("maker", "weights", "plain")
    gallery = mm.Gallery.for_vectors(tmp_path / "filled", maker, 8)
    gallery.add_vectors(
        [f"{i}" for i in range(40)], np.random.default_rng(0).normal(size=(40, 8)), fields=[{"n": i} for i in range(40)]
    )
    return gallery
