"""A run, a sweep of PDV and the report that compares them: `python examples/sweep_and_report.py`.

In the shell these are `python -m eval run wardrobe …`, `python -m eval sweep wardrobe …` and `python -m eval report results`.
"""

import io
import tempfile
from contextlib import redirect_stdout
from pathlib import Path

from eval.cli.main import main
from eval.files import read_json

with tempfile.TemporaryDirectory() as folder:
    options = ["wardrobe", "--composer", "captions", "--out", folder]
    with redirect_stdout(io.StringIO()):
        main(["run", *options, "--weights", "auto", "--name", "auto"])
        main(["sweep", *options, "--betas", "0:1:5", "--gammas", "0:2:5", "--name", "plane"])
        main(["report", folder, "--out", f"{folder}/report.html"])
    auto, plane = read_json(Path(folder, "auto.json")), read_json(Path(folder, "plane.sweep.json"))
    print(f"automatic weights: {auto['metrics']['map@10']:.1f} mAP@10")
    for name, point in plane["points"].items():
        print(f"{name}: beta {point['beta']:.2f}, gamma {point['gamma']:.2f}: {point['metrics']['map@10']:.1f}")
    print(
        f"the report has the runs {', '.join(sorted(path.stem for path in Path(folder).glob('*.json') if 'queries' not in path.name))}"
    )

# prints:
# automatic weights: 62.8 mAP@10
# base: beta 1.00, gamma 1.00: 9.9
# published: beta 0.75, gamma 1.25: 33.8
# best: beta 0.00, gamma 2.00: 47.8
# the report has the runs auto, plane.sweep
