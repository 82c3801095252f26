"""The files of deploy/: the real proxies before real servers, and what the container runs, as far as that can be seen without one."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
import yaml
from live_server import free_port, served, until

import mmretrieve as mm
from mmretrieve.cli.main import main, make_parser
from mmretrieve.server.app import create_app
from mmretrieve.server.auth import Auth

DEPLOY = Path(__file__).parents[2] / "deploy"
TOKEN = "correct-horse"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


def accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def running(words: list[str], port: int) -> Iterator[str]:
    """A proxy that listens on a port, until this ends."""
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        until(lambda: accepts(port) or process.poll() is not None)
        assert process.stderr is not None
        assert process.poll() is None, process.stderr.read()
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)
        assert process.stderr is not None
        process.stderr.close()


@contextmanager
def nginx(config: str, port: int, folder: Path) -> Iterator[str]:
    temporary = "".join(f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    (folder / "nginx.conf").write_text(
        f"{'user root;' * (os.geteuid() == 0)} daemon off; pid {folder}/pid; error_log stderr; events {{}} http {{ access_log off; {temporary} {config} }}"
    )
    with running(["nginx", "-p", str(folder), "-e", "stderr", "-c", str(folder / "nginx.conf")], port) as address:
        yield address


@contextmanager
def caddy(config: str, port: int, folder: Path) -> Iterator[str]:
    (folder / "Caddyfile").write_text(f"{{\n\tadmin off\n\tauto_https off\n}}\n{config}")
    words = ["caddy", "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]
    with running(words, port) as address:
        yield address


PROXIES = {"nginx": (nginx, "nginx.conf"), "caddy": (caddy, "Caddyfile")}


@pytest.fixture(scope="module")
def upstreams() -> Iterator[dict[str, str]]:
    """The ports of the files → those of two servers, the second of which is under /shop."""
    retriever = mm.Retriever.open(mm.wardrobe.gallery_folder())
    with ExitStack() as stack:
        links = [
            stack.enter_context(served(create_app(retriever, auth=Auth(token=TOKEN), root_path=path))) for path in ("", "/shop")
        ]
        yield {port: link.rpartition(":")[2] for port, link in zip(("7860", "7861"), links, strict=True)}


@pytest.fixture(params=PROXIES)
def proxy(request: pytest.FixtureRequest, upstreams: dict[str, str], tmp_path: Path) -> Iterator[str]:
    """A proxy with its file of deploy/, but for the ports."""
    start, name = PROXIES[request.param]
    if shutil.which(request.param) is None:
        pytest.skip(f"no {request.param} on this machine: its example is not tested")
    port = free_port()
    config = (DEPLOY / name).read_text(encoding="utf-8")
    for written, used in {**upstreams, "8080": str(port)}.items():
        assert written in config
        config = config.replace(written, used)
    with start(config, port, tmp_path) as address:
        yield address


@pytest.mark.parametrize("path", ["", "/shop"])
def test_a_server_behind_a_proxy(proxy: str, path: str) -> None:
    with httpx.Client(base_url=f"{proxy}{path}", headers=BEARER) as client:
        assert client.get("/api/health").json()["status"] == "ok"
        hits = client.post("/api/search", json={"prompt": "a red dress", "k": 3}).json()["hits"]
        assert len(hits) == 3
        assert client.get("/api/thumbnail", params={"id": hits[0]["id"]}).headers["Content-Type"] == "image/jpeg"
        large = client.post("/api/uploads", content=b"x" * 20_000_000)
        assert (large.status_code, list(large.json())) == (422, ["error"]), "the proxy passes bodies of this size"
        assert client.get("/api/health", headers={"Authorization": ""}).status_code == 401
    with httpx.Client(base_url=f"{proxy}{path}", follow_redirects=True) as browser:
        assert browser.get("/docs", params={"token": TOKEN}).status_code == 200
        assert browser.cookies, "a browser keeps the login"
        assert browser.get("/api/openapi.json").json()["info"]
        same_site = {"Origin": proxy, "Sec-Fetch-Site": "same-origin"}
        assert browser.post("/api/search", json={"prompt": "a coat"}, headers=same_site).status_code == 200


@pytest.mark.skipif(shutil.which("nginx") is None, reason="no nginx on this machine: a proxy that strips headers is not tested")
def test_a_proxy_that_strips_headers(upstreams: dict[str, str], tmp_path: Path) -> None:
    port = free_port()
    config = f"""server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://127.0.0.1:{upstreams["7860"]}; }}
        location /bare/ {{ proxy_set_header Authorization ""; proxy_pass http://127.0.0.1:{upstreams["7860"]}/; }} }}"""
    with nginx(config, port, tmp_path) as address:
        assert httpx.get(f"{address}/api/health", headers=BEARER).status_code == 200, "programs need no Host"
        page = {"Origin": "http://shop.example", "Sec-Fetch-Site": "same-origin"}
        refused = httpx.post(f"{address}/api/search", json={"prompt": "a"}, headers=BEARER | page)
        bare = httpx.get(f"{address}/bare/api/health", headers=BEARER)
        for answer, status in ((refused, (200, 403)), (bare, (401,))):
            assert answer.status_code in status
            assert answer.status_code == 200 or "\n" not in answer.json()["error"]


def test_the_container_runs_a_server_that_needs_a_token(
    upstreams: dict[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    entry = re.search(r"^ENTRYPOINT (\[.*\])$", lines, re.MULTILINE)
    assert entry
    words = shlex.split(yaml.safe_load(entry[1])[2].replace("$DEVICE", "cpu"))
    assert (words[:4], words[-1]) == (["exec", "mmretrieve", "serve", "/gallery"], "$@")
    options = make_parser().parse_args(words[2:-1])
    assert (options.host, options.port, options.device) == ("0.0.0.0", 8000, "cpu")
    monkeypatch.delenv("MMRETRIEVE_TOKEN", raising=False)
    assert main(["serve", "wardrobe", *words[4:-1]]) == 2
    error = capsys.readouterr().err
    assert ("token" in error, error.count("\n")) == (True, 1)
    health = os.environ | {"MMRETRIEVE_HEALTH": f"http://127.0.0.1:{upstreams['7860']}/api/health"}
    for changes, expected in (
        ({"MMRETRIEVE_TOKEN": TOKEN}, 0),
        ({"MMRETRIEVE_TOKEN": "wrong-horse"}, 1),
        ({"MMRETRIEVE_HEALTH": f"http://127.0.0.1:{free_port()}"}, 1),
    ):
        command = [sys.executable, str(DEPLOY / "health.py")]
        assert subprocess.run(command, env=health | changes, capture_output=True).returncode == expected
    for sources in re.findall(r"^COPY (.*) \S+$", lines, re.MULTILINE):
        assert all((DEPLOY.parent / source).exists() for source in sources.split())
    assert lines.index("USER mmretrieve") < lines.index("ENTRYPOINT")


def test_the_health_check_sends_a_user_and_a_password(retriever: mm.Retriever) -> None:
    with served(create_app(retriever, auth=Auth(user=("shop", TOKEN)))) as link:
        health = {name: value for name, value in os.environ.items() if not name.startswith("MMRETRIEVE_")}
        for user, expected in ((f"shop:{TOKEN}", 0), ("shop:wrong-horse", 1), ("", 1)):
            environment = health | {"MMRETRIEVE_HEALTH": f"{link}/api/health", "MMRETRIEVE_USER": user}
            command = [sys.executable, str(DEPLOY / "health.py")]
            assert subprocess.run(command, env=environment, capture_output=True).returncode == expected


def test_the_files_of_compose() -> None:
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))["services"]
    assert services["mmretrieve-gpu"]["build"]["args"] == {"DEVICE": "cuda"}
    for service in services.values():
        assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
        assert service["environment"]["MMRETRIEVE_TOKEN"].startswith("${MMRETRIEVE_TOKEN:?"), "there is no default token"
        assert service["volumes"][0].endswith(":/gallery:ro")
        assert service["read_only"]
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    kept = (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").split()
    assert kept[0] == "*", "nothing but what is named is sent to the builder"
