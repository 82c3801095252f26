"""Published rows that this library can run: which weights, files and settings each needs. Their numbers are those of `report.published`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from eval.report.published import find_published
from eval.runs.weight_settings import published_name
from mmretrieve.composers.captions import sdr_weights
from mmretrieve.errors import OptionError, did_you_mean
from mmretrieve.language.text_records import READERS
from mmretrieve.options import ComposerName, Preprocessing

ENCODERS = {
    "ViT-B/32": ("vitb", "ViT-B-32-quickgelu/openai"),
    "ViT-L/14": ("vitl", "ViT-L-14-quickgelu/openai"),
    "ViT-bigG/14": ("vitg", "ViT-bigG-14/laion2b_s39b_b160k"),
}
"""Backbone → its name here and its weights in open_clip. Papers write ViT-G/14 for ViT-bigG-14."""
SPLITS = {"circo": "test", "cirr": "test1", "fashioniq": "val"}
SERVER_SPLITS = ("circo", "cirr")  # whose targets only the server of the benchmark knows
DATA = {
    "circo": "CIRCO's annotations and the images of COCO unlabeled2017",
    "cirr": "CIRR's captions, splits and images",
    "fashioniq": "FashionIQ's captions, splits and images",
}
CAPTIONS = {
    "captioner": "captions of the references by BLIP-2 (CIReVL's or LDRE's own, or of --captioner endpoint)",
    "rewriter": "rewrites of these captions by a language model (CIReVL's or LDRE's own, or of --rewriter endpoint)",
}


@dataclass(frozen=True)
class PublishedMethod:
    """A method of a paper: its composer, preprocessing and the files it needs, by the options that name them."""

    composer: ComposerName
    files: Mapping[str, str] = field(default_factory=dict)
    preprocessing: Preprocessing = Preprocessing.TARGET_PAD


METHODS = {
    "CIReVL": PublishedMethod(ComposerName.CAPTIONS, CAPTIONS),
    "LDRE": PublishedMethod(ComposerName.LDRE, CAPTIONS),
    "SEIZE": PublishedMethod(ComposerName.SEIZE, CAPTIONS),
    "SDR-CIR": PublishedMethod(ComposerName.SDR, CAPTIONS),
    "SEARLE": PublishedMethod(
        ComposerName.SEARLE, {"phi": "SEARLE's phi for the backbone, released for ViT-B/32 and ViT-L/14"}
    ),
    "Pic2Word": PublishedMethod(
        ComposerName.PIC2WORD, {"phi": "Pic2Word's checkpoint, released for ViT-L/14"}, Preprocessing.PLAIN
    ),
    "LinCIR": PublishedMethod(
        ComposerName.LINCIR, {"phi": "LinCIR's released phi, such as lincir_large.pt"}, Preprocessing.PLAIN
    ),
}
WITH_PDV = " + PDV-F"
SDR_SETTINGS = {"circo": (0.15, 0.35), "cirr": (0.05, 0.5), "fashioniq": (0.2, 0.4)}
"""Benchmark → SDR-CIR's published a and b."""
OTHER_RULES = {("SEIZE", "cirr", "ViT-bigG/14")}
"""Rows that are left out: row, benchmark and backbone. This one's gain and loss are not those of the rule `hinge`."""


@dataclass(frozen=True)
class Reproduction:
    """One row of a paper on one benchmark.

    Parameters
    ----------
    row : the name of the row, such as "CIReVL + PDV-F".
    benchmark, backbone : as in the table of published results.
    published : metric → value ×100.
    """

    row: str
    benchmark: str
    backbone: str
    published: Mapping[str, float]

    @property
    def method(self) -> PublishedMethod:
        return METHODS[self.row.removesuffix(WITH_PDV)]

    @property
    def name(self) -> str:
        """Such as "pdv-cirevl-circo-vitl"."""
        prefix = "pdv-" if self.row.endswith(WITH_PDV) else ""
        return f"{prefix}{self.row.removesuffix(WITH_PDV).lower()}-{self.benchmark}-{ENCODERS[self.backbone][0]}"

    @property
    def weights(self) -> list[str]:
        """The option that sets the published weights, whatever encoder runs; empty for the composer's own weights."""
        if self.row.endswith(WITH_PDV):
            setting = published_name(self.method.composer, self.benchmark, ENCODERS[self.backbone][1])
            assert setting is not None  # a test resolves every row
            return ["--pdv", setting]
        if self.method.composer is ComposerName.SDR:
            weights = sdr_weights(*SDR_SETTINGS[self.benchmark])
            return ["--weights", ",".join(f"{role}={weight:g}" for role, weight in weights.items())]
        return []

    def words(
        self, root: str, options: Mapping[str, object], *, encoder: str | None = None, split: str | None = None
    ) -> list[str]:
        """The command of `python -m eval` that runs it: `submit` where only a server knows the targets, else `run`."""
        submits = self.benchmark in SERVER_SPLITS and split is None
        words = ["submit" if submits else "run", self.benchmark, "--root", root]
        words += [] if submits else ["--split", split or SPLITS[self.benchmark]]
        words += ["--encoder", encoder or ENCODERS[self.backbone][1], "--composer", self.method.composer]
        words += ["--preprocessing", self.method.preprocessing, *self.weights]
        for name, value in options.items():
            words += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
        return list(map(str, words))

    def missing(self, root: str | Path | None, options: Mapping[str, object]) -> list[str]:
        """What it needs and was not given, or does not exist, a line each."""
        needed = {"root": DATA[self.benchmark], **self.method.files}
        given = {**options, "root": root}
        return [
            f"--{name}: {what}{absence}"
            for name, what in needed.items()
            if (absence := _absence(name, given.get(name))) is not None
        ]


def _absence(name: str, value: object) -> str | None:
    """Why the value of an option does not do: empty where there is none; None where it does. Captioners and rewriters have names, too."""
    if value is None:
        return ""
    path = Path(str(value))
    is_path = name in ("root", "phi") or path.suffix.lower() in READERS
    return f" ({path} does not exist)" if is_path and not path.exists() else None


def reproductions() -> Iterator[Reproduction]:
    """Every published row that this library can run with the paper's settings."""
    for benchmark in SPLITS:
        published = find_published(benchmark)
        for backbone, rows in published.values.items() if published else ():
            for row, values in rows.items():
                if row.removesuffix(WITH_PDV) in METHODS and (row, benchmark, backbone) not in OTHER_RULES:
                    yield Reproduction(row, benchmark, backbone, values)


def find_reproduction(name: str) -> Reproduction:
    """The reproduction of that name; "pdv-circo-vitl" is that of CIReVL. Raises OptionError for an unknown one."""
    known = {one.name: one for one in reproductions()}
    found = known.get(name) or known.get(name.replace("pdv-", "pdv-cirevl-", 1))
    if found is None:
        raise OptionError(f"unknown reproduction {name!r}{did_you_mean(name, known)}; `python -m eval reproduce` lists all")
    return found
