"""One gallery from a folder to its answers: the shell, the API and Python do the same and say the same."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path

import httpx
import pytest
from live_server import served

import mmretrieve as mm
from mmretrieve.cli.main import main
from mmretrieve.server.app import create_app

KNOBS = {"alpha_image": 1.4, "alpha_text": 1.2, "beta": 0.75}


def test_a_gallery_lives(tmp_path: Path, photos: Path, encoder: mm.Encoder, capsys: pytest.CaptureFixture[str]) -> None:
    folder, source = tmp_path / "shop.gallery", tmp_path / "photos"
    shutil.copytree(photos, source)
    assert (
        main(
            ["index", str(source), "--gallery", str(folder), "--encoder", "wardrobe", "--dtype", "float32", "--quiet", "--json"]
        )
        == 0
    )
    assert json.loads(capsys.readouterr().out)["added"] == 60
    reference, *others = sorted(source.rglob("*.png"))
    retriever = mm.Retriever.open(folder, encoder=encoder)
    ranking = retriever.search(reference, "in red", k=60, **KNOBS)
    assert sorted(ranking.ids) == sorted(path.relative_to(source).as_posix() for path in (reference, *others))

    gone = ranking.ids[1]
    assert main(["delete", str(folder), gone]) == 0
    capsys.readouterr()
    (source / gone).unlink()
    assert main(["index", str(source), "--gallery", str(folder), "--quiet"]) == 0
    assert "0 added, 59 unchanged, 0 failed; 59 items" in capsys.readouterr().out
    retriever = mm.Retriever.open(folder, encoder=encoder)
    ranking = retriever.search(reference, "in red", k=60, **KNOBS)
    assert (len(ranking), gone in ranking.ids) == (59, False)
    expected = [(hit.rank, hit.id, hit.score, dict(hit.contributions)) for hit in ranking]

    knobs = [word for name, value in KNOBS.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    asked = ["--image", str(reference), "--prompt", "in red", "-k", "60", *knobs, "--json"]
    assert main(["search", str(folder), *asked, "--dtype", "float32"]) == 0
    hits = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(hit["rank"], hit["id"], hit["score"], hit["contributions"]) for hit in hits] == expected

    with served(create_app(retriever)) as link:
        upload = httpx.post(f"{link}/api/uploads", content=reference.read_bytes()).json()["upload"]
        answer = httpx.post(f"{link}/api/search", json={"upload": upload, "prompt": "in red", "k": 60, **KNOBS}, timeout=60)
        assert [(hit["rank"], hit["id"], hit["score"], hit["contributions"]) for hit in answer.json()["hits"]] == expected

    assert main(["verify", str(folder)]) == 0
    with sqlite3.connect(folder / "gallery.sqlite") as ledger:
        ledger.execute("UPDATE items SET width = width + 1 WHERE id = ?", (ranking.ids[0],))
    assert main(["verify", str(folder)]) == 1
