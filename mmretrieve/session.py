"""Sessions: a search in several turns. A session is a function of its turns, which merge into one request."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from itertools import compress
from typing import Any

from mmretrieve.errors import MissingError, OptionError, checks_keywords, unknown
from mmretrieve.language.lexicon import general_lexicon
from mmretrieve.language.rewriters import split_prompt
from mmretrieve.language.role_compiler import RuleCompiler, wish_of
from mmretrieve.options import is_number
from mmretrieve.ranking import Hit, Ranking
from mmretrieve.request import REQUEST_FIELDS, FieldKind, check_one_each, normalized

DEFAULT_DECAY = 1.0
REFERENCES = ("image", "upload", "reference_id")  # upload: what clients of a server sent before
OF_REFERENCES = (*REFERENCES, "region", "image_weight", "caption")
PDV_FIELDS = ("alpha_image", "alpha_text", "beta")
REPLACED: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(REFERENCES, OF_REFERENCES),
    **dict.fromkeys(PDV_FIELDS, ("weights",)),
    "weights": PDV_FIELDS,
    "axis": ("axis_opposite", "axis_weight"),
}
"""A field → the fields of earlier turns that it replaces besides itself."""
DROPPED_WITH: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(REFERENCES, (*OF_REFERENCES, "exclude_reference")),
    "prompt": ("strength", "paraphrases"),
    "axis": REPLACED["axis"],
    "judge": ("judge_k", "judge_weight"),
}
"""A field that `drop` names → the fields that mean nothing without it."""
OPPOSITES = {"prompt": "avoid", "avoid": "prompt", "more_like": "less_like", "less_like": "more_like"}
"""A field whose values accumulate → the field that contradicts it."""

DROP = "drop"
"""The keyword of a turn that names fields of earlier turns to forget."""

Turn = Mapping[str, Any]
"""The keywords of `Retriever.search` that a turn names, and `drop`."""


def merge_turns(turns: Sequence[Turn], decay: float = DEFAULT_DECAY) -> dict[str, Any]:
    """Merges the turns of a session into one request. It is the same for the same turns, so a server need not store sessions.

    - `prompt` accumulates. A prompt of turn t of T has decay^(T − t) times its strength.
    - `avoid`, `more_like` and `less_like` accumulate. An empty list drops what earlier turns named.
    - A value that repeats or contradicts one of an earlier turn takes its place: a phrase to avoid that becomes a prompt, an item
      that was liked and is disliked now, "in red" after "in black". Each of two prompts asks for one value of the same kind then, and for
      nothing else.
    - References replace all earlier ones, with their regions, weights and captions. A turn without a reference keeps them.
    - Every other field has the value of the last turn that names it. `weights` and the parameters of PDV replace each other;
      an axis replaces an earlier one with its opposite and its weight.
    - `drop` names fields, such as "where" or "judge", whose values of earlier turns are forgotten.

    Parameters
    ----------
    turns : list of mappings
        The keywords of `Retriever.search`, oldest turn first; None stands for a keyword that a turn does not name.
    decay : float, default=1
        From 0, which keeps only the prompts of the last turn, to 1, which keeps all with their full strength.

    Returns
    -------
    dict of str to Any
        Keywords of `Retriever.search`. They are a turn themselves: further turns can be merged into it.

    Raises
    ------
    OptionError
        There are no turns, one is not a mapping, has a wrong number of strengths or drops what is no field, or `decay` is out of
        range. Other values are checked by the search.

    Source
    ------
    CIRCLED, arXiv 2605.26734, for the form of the turns; the decay of prompts is this library's.

    Examples
    --------
    >>> from mmretrieve import merge_turns
    >>> turns = [{"reference_id": "a.jpg", "prompt": "in red"}, {"prompt": "longer", "k": 5}, {"more_like": "b.jpg"}]
    >>> request = merge_turns(turns, decay=0.5)
    >>> request["reference_id"], request["prompt"], request["strength"], request["more_like"], request["k"]
    ('a.jpg', ['in red', 'longer'], [0.25, 0.5], ['b.jpg'], 5)
    >>> merge_turns([{"prompt": "a dress", "where": "price < 50"}, {"drop": "where"}])
    {'prompt': ['a dress'], 'strength': [1.0]}
    """
    if isinstance(turns, Mapping | str) or not isinstance(turns, Sequence):
        raise OptionError(f"turns must be a list of mappings such as {{'prompt': 'in red'}}, got {turns!r:.80}")
    if not turns:
        raise OptionError("there are no turns; give at least one, such as {'prompt': 'in red'}")
    check_decay(decay)
    parsed = [_parse_turn(number, turn) for number, turn in enumerate(turns, start=1)]
    return reduce(lambda earlier, turn: _merge(earlier, turn, decay), parsed, {})


@checks_keywords
class Session:
    """A search in several turns: "in red", then "longer", then "like the third, but cheaper".

    `Retriever.session` makes one. A turn that fails is not recorded.

    Parameters
    ----------
    search : callable
        Takes the merged keywords of all turns: `Retriever.search`.
    decay : float, default=1
        How much of the strength of prompts remains with each further turn (see `merge_turns`).

    Attributes
    ----------
    decay : float
        As given.

    Raises
    ------
    OptionError
        `decay` is not a number from 0 to 1.

    Examples
    --------
    >>> import mmretrieve as mm
    >>> session = mm.Retriever.open(mm.wardrobe.gallery_folder()).session()
    >>> ranking = session.search(reference_id="navy-checked-top-0218.png", prompt="in beige")
    >>> ranking = session.search(prompt="with zigzags")
    >>> ranking[0].id.split("-")[:3], len(session.turns)
    (['beige', 'zigzag', 'top'], 2)
    """

    def __init__(self, search: Callable[..., Ranking], *, decay: float = DEFAULT_DECAY) -> None:
        self.decay = check_decay(decay)
        self._search = search
        self._steps: list[tuple[dict[str, Any], Ranking]] = []

    @property
    def turns(self) -> tuple[dict[str, Any], ...]:
        """The keywords of each turn, oldest first: the input of `merge_turns` and of `POST /api/session`."""
        return tuple(dict(turn) for turn, _ in self._steps)

    @property
    def ranking(self) -> Ranking | None:
        """The result of the last turn; None before the first."""
        return self._steps[-1][1] if self._steps else None

    def search(self, image: Any = None, prompt: Any = None, **keywords: Any) -> Ranking:
        """Searches with one more turn.

        Parameters
        ----------
        image, prompt : Any, optional
            As in `Retriever.search`.
        **keywords : Any
            Other keywords of `Retriever.search`. What the turn does not name, it has from the earlier turns. ``drop="where"``, or a list,
            names fields of earlier turns to forget.

        Returns
        -------
        Ranking
            The result of all turns together.

        Raises
        ------
        OptionError, ImageError, GalleryError
            As `Retriever.search`; the turn is not recorded. A message about a missing item says so if earlier turns may have named it.

        Examples
        --------
        >>> import mmretrieve as mm
        >>> session = mm.Retriever.open(mm.wardrobe.gallery_folder()).session()
        >>> ranking = session.search(prompt="a red dress", k=3)
        >>> ranking = session.search(reference_id=ranking[2].id, prompt="with long sleeves")
        >>> len(ranking)
        3
        """
        given = {"image": image, "prompt": prompt, **keywords}
        turn = {name: _copied(value) for name, value in given.items() if value is not None}
        request = merge_turns([*self.turns, turn], self.decay)
        try:
            ranking = self._search(**request)
        except MissingError as error:
            if not self._steps:
                raise
            raise MissingError(
                f"{error}; if an earlier turn named it, give another reference or item, or undo that turn"
            ) from error
        self._steps.append((turn, ranking))
        return ranking

    def like(self, *hits: Hit | str) -> Ranking:
        """Searches with a turn that asks for more like some hits.

        Parameters
        ----------
        *hits : Hit or str
            Hits, or ids of items.

        Returns
        -------
        Ranking
            The result of ``search(more_like=ids)``.

        Raises
        ------
        OptionError, GalleryError
            No hit is given, or as `search`.

        Examples
        --------
        >>> import mmretrieve as mm
        >>> session = mm.Retriever.open(mm.wardrobe.gallery_folder()).session()
        >>> ranking = session.search(prompt="a red dress")
        >>> ranking = session.like(ranking[0], ranking[2])
        >>> len(session.turns[-1]["more_like"])
        2
        """
        return self.search(more_like=_ids(hits))

    def dislike(self, *hits: Hit | str) -> Ranking:
        """Searches with a turn that asks for less like some hits.

        Parameters
        ----------
        *hits : Hit or str
            Hits, or ids of items.

        Returns
        -------
        Ranking
            The result of ``search(less_like=ids)``.

        Raises
        ------
        OptionError, GalleryError
            No hit is given, or as `search`.

        Examples
        --------
        >>> import mmretrieve as mm
        >>> session = mm.Retriever.open(mm.wardrobe.gallery_folder()).session()
        >>> first = session.search(prompt="a red dress")[0]
        >>> session.dislike(first)[0].id == first.id
        False
        """
        return self.search(less_like=_ids(hits))

    def undo(self) -> Ranking | None:
        """Removes the last turn.

        Returns
        -------
        Ranking or None
            The result of the turn before it, as it was; None if there is none.

        Raises
        ------
        OptionError
            There is no turn.

        Examples
        --------
        >>> import mmretrieve as mm
        >>> session = mm.Retriever.open(mm.wardrobe.gallery_folder()).session()
        >>> before, _ = session.search(prompt="a red dress"), session.search(prompt="with dots")
        >>> session.undo() is before, len(session.turns)
        (True, 1)
        """
        if not self._steps:
            raise OptionError("the session has no turn to undo; search first")
        self._steps.pop()
        return self.ranking


def check_decay(decay: Any) -> float:
    """The value. Raises OptionError unless it is a number from 0 to 1."""
    if not is_number(decay) or not 0 <= decay <= 1:
        raise OptionError(f"decay must be a number from 0 to 1, got {decay!r}")
    return float(decay)


def _parse_turn(number: int, turn: Any) -> dict[str, Any]:
    """The fields that a turn names, with lists of what accumulates and a strength for each prompt."""
    if not isinstance(turn, Mapping):
        raise OptionError(f"turn {number}: expected a mapping such as {{'prompt': 'in red'}}, got {turn!r:.80}")
    named = {name: value for name, value in turn.items() if value is not None}
    try:
        lists = {
            name: list(REQUEST_FIELDS[name].parse(name, named[name])) for name in (*OPPOSITES, "strength") if name in named
        }
        prompts, strengths = lists.get("prompt", []), lists.get("strength")
        if strengths:
            check_one_each("strength", tuple(strengths), len(prompts), "prompt")
        if DROP in named:
            lists[DROP] = _dropped(named[DROP])
    except OptionError as error:
        raise OptionError(f"turn {number}: {error}") from error
    return named | lists | {"strength": strengths or [1.0] * len(prompts)}


def _dropped(value: Any) -> list[str]:
    """The fields that `drop` names, with those that are lost with them: all references and their regions, prompts and their strengths."""
    names = list(value) if isinstance(value, list | tuple) else [value]
    fields = (*REQUEST_FIELDS, "upload")
    for name in names:
        if name not in fields:
            raise unknown("field to drop", name, fields)
    return [each for name in names for each in (name, *DROPPED_WITH.get(name, ()))]


def _merge(earlier: Turn, turn: Turn, decay: float) -> dict[str, Any]:
    """One more parsed turn."""
    earlier = {name: value for name, value in earlier.items() if name not in turn.get(DROP, ())}
    turn = {name: value for name, value in turn.items() if name != DROP}
    replaced = {name for given in turn for name in REPLACED.get(given, ())}
    merged = {name: value for name, value in earlier.items() if name not in replaced} | dict(turn)
    for name in OPPOSITES:
        kept = _kept(name, earlier, turn)
        if name == "prompt":
            kept = [keep and decay > 0 for keep in kept]
            decayed = [strength * decay for strength in earlier.get("strength", [1.0] * len(earlier.get("prompt", ())))]
            merged["strength"] = [*compress(decayed, kept), *turn["strength"]]
        merged[name] = [*compress(earlier.get(name, ()), kept), *turn.get(name, ())]
    return {name: value for name, value in merged.items() if name not in (*OPPOSITES, "strength") or value}


def _kept(name: str, earlier: Turn, turn: Turn) -> list[bool]:
    """Whether each earlier value of a field remains: the turn does not drop them all, nor repeat or contradict this one."""
    key = normalized if REQUEST_FIELDS[name].kind is FieldKind.TEXT else str
    drops = name in turn and not turn[name]
    later = {key(value) for field in (name, OPPOSITES[name]) for value in turn.get(field, ())}
    changed = set(map(_class_of, turn.get(name, ()))) - {None} if name == "prompt" else set()
    return [
        not drops and key(value) not in later and not (changed and _class_of(value) in changed)
        for value in earlier.get(name, ())
    ]


def _class_of(prompt: str) -> int | None:
    """The class of words of which a prompt asks for one value and for nothing else: colors for "in red"; None for any other prompt.

    "longer" is a step from what there is, "without dots" leaves other patterns, and "a lamp" may be beside "a chair".
    """
    lexicon, wish = general_lexicon(), wish_of(prompt)
    parts = list(split_prompt(lexicon, wish))
    readings = [match.readings for part in parts for match in part.matches]
    is_one = len(readings) == 1 and len(readings[0]) == 1 and not any(part.others() for part in parts)
    if not is_one or RuleCompiler().roles(wish).forbidden:
        return None
    ((position, reading),) = readings[0].items()
    return None if reading.step or position == lexicon.thing else position


def _copied(value: Any) -> Any:
    """A list that the caller may change later as another list; anything else as it is."""
    return list(value) if isinstance(value, list) else value


def _ids(hits: Sequence[Hit | str]) -> list[str]:
    if not hits:
        raise OptionError("no hit is given; name at least one hit of a ranking, or the id of an item")
    return [hit.id if isinstance(hit, Hit) else hit for hit in hits]
