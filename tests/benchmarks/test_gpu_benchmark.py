"""The GPU benchmark runs at a tiny size, on a CPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def test_encoding_on_a_device_is_measured_without_faiss(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "sys.modules['faiss'] = None\n"
        "from benchmarks import gpu\n"
        "gpu.measure_bandwidth.__defaults__ = (1 << 20,)\n"
        "gpu.make_photos.__globals__['PHOTO_SIZE'] = (160, 120)\n"
        f"sys.argv = ['gpu', '--device', 'cpu', '--encoder', 'wardrobe', '--photos', '6', '--out', {str(tmp_path)!r}]\n"
        "gpu.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
    encoding = result["encoding"]
    assert (encoding["photos"], encoding["encoder"], "search" in result) == (6, "wardrobe", False)
    assert len(encoding["images a second"]) == 4
    assert all(rate > 0 for rate in encoding["images a second"].values())
    rates = encoding["images a second"]
    tower, index = (
        rates["tower alone, images in the memory of the device"],
        rates["index without commits (decode, thumbnail, encode)"],
    )
    assert encoding["share of the tower alone"] == index / tower
    assert result["memory bandwidth, GB/s"] > 0
