"""The result of a search: hits in order, each with its score and the contribution of every term."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

from mmretrieve.errors import OptionError, printable, unknown
from mmretrieve.options import NO_MATCH, RuleName


@dataclass(frozen=True)
class Hit:
    """One item of a ranking.

    Parameters
    ----------
    rank : int
        The position, from 1.
    id : str
        The id of the item.
    score : float
        Higher is better.
    contributions : mapping of str to float
        Term → its contribution to the score: weight × term score under a linear rule. The contributions sum to `score`.
    path : str, optional
        The file of the image; None if the item has none.

    Examples
    --------
    >>> from mmretrieve import Hit
    >>> Hit(rank=1, id="a.jpg", score=0.75, contributions={"image": 0.5, "prompt": 0.25})
    Hit(rank=1, id='a.jpg', score=0.75, path=None)
    """

    rank: int
    id: str
    score: float
    contributions: Mapping[str, float] = field(repr=False)
    path: str | None = None

    def __init__(self, rank: int, id: str, score: float, contributions: Mapping[str, float], path: str | None = None) -> None:
        values = self.__dict__  # a ranking may have thousands of hits, and a generated `__init__` takes twice as long
        values["rank"], values["id"], values["score"] = rank, id, score
        values["contributions"], values["path"] = contributions, path

    def to_dict(self) -> dict[str, Any]:
        """Returns the hit as JSON values.

        Returns
        -------
        dict of str to Any
            Every field by its name.

        Examples
        --------
        >>> from mmretrieve import Hit
        >>> Hit(rank=1, id="a.jpg", score=0.75, contributions={"image": 0.75}).to_dict()
        {'rank': 1, 'id': 'a.jpg', 'score': 0.75, 'contributions': {'image': 0.75}, 'path': None}
        """
        return {**vars(self), "contributions": dict(self.contributions)}


@dataclass(frozen=True)
class Ranking:
    """The best hits of a search, best first. It behaves like a sequence of `Hit`.

    Parameters
    ----------
    hits : tuple of Hit
        The hits, at most `k`.
    k : int
        The number of hits that was requested.
    searched : int
        The number of items that could appear.
    weights : mapping of str to float
        Term → its weight.
    words : mapping of str to str
        Term → the text it encodes, for terms of text.
    note : str, optional
        Remarks on the result, such as why there are fewer than `k` hits.
    rule : RuleName, default=RuleName.LINEAR
        The score rule.
    pool : int, optional
        The number of candidates that a non-linear rule scored; None if it scored every item or the rule is linear.
    hidden : mapping of str to int
        Reason → the number of items that it excluded.
    why : str, optional
        The automatic weights and the reason for them, in one line.
    answerable : float, optional
        How well the gallery matches the query, from 0 (no match) to 1. Comparable between queries.
    gallery : Gallery or MilvusGallery, optional
        What was searched: it has the fields and the pictures of the hits. Rankings are equal without it, and it is not pickled.

    Examples
    --------
    >>> from mmretrieve import Hit, Ranking
    >>> ranking = Ranking((Hit(1, "a.jpg", 0.75, {"image": 0.75}),), k=10, searched=1, weights={"image": 1.0})
    >>> len(ranking), ranking.ids, ranking[0].score
    (1, ('a.jpg',), 0.75)
    """

    hits: tuple[Hit, ...]
    k: int
    searched: int
    weights: Mapping[str, float]
    words: Mapping[str, str] = field(default_factory=dict)
    note: str | None = None
    rule: str = RuleName.LINEAR
    pool: int | None = None
    hidden: Mapping[str, int] = field(default_factory=dict)
    why: str | None = None
    answerable: float | None = None
    gallery: Any = field(default=None, repr=False, compare=False)

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the hits, best first."""
        return tuple(hit.id for hit in self.hits)

    @property
    def caption(self) -> str | None:
        """The caption of the (first) reference image; None if the composer uses no caption."""
        return self.words.get("text")

    @property
    def has_match(self) -> bool:
        """False if no item matches the query: there are no hits, or `answerable` is below NO_MATCH."""
        return bool(self.hits) and (self.answerable is None or self.answerable >= NO_MATCH)

    @property
    def query(self) -> dict[str, Any]:
        """How the query was interpreted and what was searched, as JSON values: `to_dict` without the hits."""
        return {
            "caption": self.caption,
            "words": dict(self.words),
            "weights": dict(self.weights),
            "why": self.why,
            "rule": str(self.rule),
            "k": self.k,
            "searched": self.searched,
            "pool": self.pool,
            "hidden": dict(self.hidden),
            "answerable": self.answerable,
            "has_match": self.has_match,
            "note": self.note,
        }

    def to_dict(self) -> dict[str, Any]:
        """Returns the ranking as JSON values. Shell, API, MCP and page take their fields from it.

        Returns
        -------
        dict of str to Any
            Every field by its name, `caption` and `has_match`; `hits` is a list of `Hit.to_dict`.

        Examples
        --------
        >>> from mmretrieve import Hit, Ranking
        >>> ranking = Ranking((Hit(1, "a.jpg", 0.75, {"image": 0.75}),), k=10, searched=1, weights={"image": 1.0})
        >>> [hit["id"] for hit in ranking.to_dict()["hits"]], ranking.to_dict()["rule"], ranking.to_dict()["has_match"]
        (['a.jpg'], 'linear', True)
        """
        return {"hits": [hit.to_dict() for hit in self.hits], **self.query}

    @property
    def fields(self) -> tuple[Mapping[str, Any], ...]:
        """The fields of the item of each hit; none for an item that was deleted since, or without a gallery."""
        from mmretrieve.ranking import columns

        fields = {} if self.gallery is None else columns.read_fields(self.gallery, self.ids)
        return tuple(fields.get(id_, {}) for id_ in self.ids)

    def to_pandas(self) -> Any:
        """Returns the hits as a data frame of pandas.

        Returns
        -------
        pandas.DataFrame
            A row for each hit: rank, id, score, "contribution TERM" for each term, path, and the fields of the item. A ranking without hits
            has the same columns.

        Raises
        ------
        MMRetrieveError
            pandas is not installed.

        Examples
        --------
        >>> from mmretrieve import Hit, Ranking
        >>> ranking = Ranking((Hit(1, "a.jpg", 0.75, {"image": 0.75}),), k=10, searched=1, weights={"image": 1.0})
        >>> list(ranking.to_pandas())
        ['rank', 'id', 'score', 'contribution image', 'path']
        """
        from mmretrieve.ranking import columns

        return columns.to_pandas(columns.Table.of(self, self.fields))

    def to_polars(self) -> Any:
        """Returns the hits as a data frame of polars, with the columns of `to_pandas`.

        Returns
        -------
        polars.DataFrame
            A row for each hit.

        Raises
        ------
        MMRetrieveError
            polars is not installed.
        """
        from mmretrieve.ranking import columns

        return columns.to_polars(columns.Table.of(self, self.fields))

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        """The hits as an Arrow stream, with the columns of `to_pandas`: `pyarrow.table(ranking)`. Needs pyarrow."""
        from mmretrieve.ranking import columns

        return columns.to_arrow(columns.Table.of(self, self.fields)).__arrow_c_stream__(requested_schema)

    def to_trec(self, query: str, name: str = "mmretrieve") -> str:
        """Returns the hits as lines of a TREC run, `query Q0 item rank score name`.

        Parameters
        ----------
        query : str
            The id of the query.
        name : str, default="mmretrieve"
            The name of the run.

        Returns
        -------
        str
            A line for each hit. Scores fall strictly, so that no tool breaks a tie in its own way; spaces in ids are "%20".

        Raises
        ------
        OptionError
            The name of the run is empty or has spaces, or the id of the query is empty.

        Source
        ------
        The format of trec_eval

        Examples
        --------
        >>> from mmretrieve import Hit, Ranking
        >>> Ranking((Hit(1, "a.jpg", 0.75, {"image": 0.75}),), k=10, searched=1, weights={"image": 1.0}).to_trec("q1").split()
        ['q1', 'Q0', 'a.jpg', '1', '0.75', 'mmretrieve']
        """
        from mmretrieve.ranking import trec

        return "".join(f"{line}\n" for line in trec.run_lines({query: self}, name))

    def to_html(self, count: int = 24) -> str:
        """Returns the first hits as HTML: pictures, titles and contributions, with inline styles only and without scripts and requests.

        Parameters
        ----------
        count : int, default=24
            The number of hits.

        Returns
        -------
        str
            A fragment, whose pictures are within it.

        Examples
        --------
        >>> from mmretrieve import Hit, Ranking
        >>> ranking = Ranking((Hit(1, "<b>.jpg", 0.75, {"image": 0.75}),), k=10, searched=1, weights={"image": 1.0})
        >>> "&lt;b&gt;.jpg" in ranking.to_html()
        True
        """
        from mmretrieve.ranking import page

        return page.ranking_html(self, count)

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        return {"text/html": self.to_html(), "text/plain": str(self)}

    def save(self, path: str | Path) -> Path:
        """Writes the hits to a file.

        Parameters
        ----------
        path : str or Path
            Its suffix says what is written: .csv, .json, .html, or .zip (thumbnails of the first 100 and a CSV file).

        Returns
        -------
        Path
            The file.

        Raises
        ------
        OptionError
            The suffix is another one, or pictures are asked for without a gallery.

        Examples
        --------
        >>> import tempfile
        >>> from mmretrieve import Hit, Ranking
        >>> ranking = Ranking((Hit(1, "a.jpg", 0.75, {"image": 0.75}),), k=10, searched=1, weights={"image": 1.0})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     ranking.save(f"{folder}/hits.csv").read_text(encoding="utf-8-sig").splitlines()
        ['rank,id,score,contribution image', '1,a.jpg,0.75,0.75']
        """
        from mmretrieve import notebook
        from mmretrieve.ranking import files

        target = Path(path)
        form = target.suffix.lower().removeprefix(".")
        if form == "html":
            target.write_text(notebook.document("mmretrieve", self.to_html(len(self))), encoding="utf-8")
            return target
        if form not in set(files.ExportFormat):
            raise unknown("suffix", target.suffix, [*(f".{one}" for one in files.ExportFormat), ".html"])
        if form == files.ExportFormat.ZIP and self.gallery is None:
            raise OptionError("this ranking has no gallery, so there are no pictures for a .zip; choose another suffix")
        made = files.export(self, self.fields, files.ExportFormat(form), lambda id_: bytes(self.gallery.thumbnail(id_)))
        target.write_bytes(made.content)
        return target

    def show(self) -> Path:
        """Opens the hits as a page in the browser, as `PIL.Image.show` opens an image. In a notebook, the ranking itself is shown.

        Returns
        -------
        Path
            The page, a temporary file.
        """
        import webbrowser

        with tempfile.NamedTemporaryFile(prefix="mmretrieve-", suffix=".html", delete=False) as file:
            path = Path(file.name)
        self.save(path)
        webbrowser.open(path.as_uri())
        return path

    def __str__(self) -> str:
        """A line for each hit: rank, score, id, and contributions that are not 0."""
        return "\n".join(map(_line, self)) or f"no hits among {self.searched:,} items"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "gallery": None}

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.hits)

    def __len__(self) -> int:
        return len(self.hits)

    @overload
    def __getitem__(self, index: int) -> Hit: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Hit, ...]: ...
    def __getitem__(self, index: int | slice) -> Hit | tuple[Hit, ...]:
        return self.hits[index]


def _line(hit: Hit) -> str:
    contributions = "  ".join(f"{name} {value:+.3f}" for name, value in hit.contributions.items() if value)
    return printable(f"{hit.rank:>4}  {hit.score:.4f}  {hit.id}  ({contributions})")
