"""The contract of composers (`mmretrieve.composers.base`), and of the traits of registered ones."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np

from mmretrieve.composer_input import ComposerInput
from mmretrieve.composers.base import Composer
from mmretrieve.composers.factory import Parts, make_composer
from mmretrieve.composers.paraphrased import mean_composition
from mmretrieve.composition import Composition
from mmretrieve.directions import Term
from mmretrieve.encoders.base import Encoder
from mmretrieve.errors import OptionError
from mmretrieve.options import BUILT_IN
from mmretrieve.registry import COMPOSERS, ComposerEntry
from mmretrieve.testing.clauses import DEFAULT_TOLERANCE, check_clauses, require, require_close, sample_images
from mmretrieve.vectors import UNIT_TOLERANCE, Float32

PROMPTS = ("in red", "with long sleeves", "striped", "a photo of it at night")
WORDINGS = (PROMPTS[0], "make it red", "a red one")
AVERAGED = (Term.IMAGE, Term.TEXT, Term.COMPOSED, Term.PROMPT)


@dataclass(frozen=True)
class _ComposerCase:
    """A composer, the (n, dim) vectors of the references of its queries, and the tolerance between terms of one query."""

    composer: Composer
    vectors: Float32
    tolerance: float

    @property
    def queries(self) -> list[ComposerInput]:
        """Queries that nobody has changed."""
        rows = zip(self.vectors.copy(), PROMPTS, sample_images(), strict=True)
        return [ComposerInput(vector, prompt, image=image) for vector, prompt, image in rows]

    def compose(self) -> list[Composition]:
        return self.composer.compose(self.queries)


@dataclass(frozen=True)
class _TraitsCase:
    """The entry of a registered composer, the composer, a query with a reference and a prompt, and the tolerance between its terms."""

    entry: ComposerEntry
    composer: Composer
    query: ComposerInput
    tolerance: float


def check_composer(
    composer: Composer | str,
    *,
    encoder: Encoder | None = None,
    parts: Parts | None = None,
    tolerance: float = DEFAULT_TOLERANCE,
) -> None:
    """Checks that a composer keeps the contract of `Composer`, and a registered one that of its traits.

    It composes some queries of small images and short prompts, each several times.

    Parameters
    ----------
    composer : Composer or str
        What is checked: a composer, or the name of a built-in or registered one.
    encoder : Encoder, optional
        The encoder of the composer, which encodes the references. Default: the built-in one.
    parts : Parts, optional
        What a composer with a name is built of. Default: the default of each part.
    tolerance : float, default=1e-3
        The greatest length of the difference between two terms of one query, such as alone and in a batch.

    Raises
    ------
    AssertionError
        A clause is violated. The message is one line that names it.
    OptionError
        The name is unknown, or a part that the composer needs is missing.

    Examples
    --------
    >>> import mmretrieve as mm
    >>> class Nothing:
    ...     def compose(self, inputs):
    ...         return []
    >>> mm.testing.check_composer("sum")
    >>> try:
    ...     mm.testing.check_composer(Nothing())
    ... except AssertionError as error:
    ...     print(error)
    composer Nothing violates "each query has one composition": 4 queries gave 0
    """
    if encoder is None:
        from mmretrieve.encoders.loading import load_encoder  # torch only where an encoder is not given

        encoder = load_encoder(BUILT_IN)
    vectors = encoder.encode_images(sample_images())
    if not isinstance(composer, str):
        check_clauses(f"composer {type(composer).__name__}", _ComposerCase(composer, vectors, tolerance), CLAUSES)
        return
    case = _ComposerCase(make_composer(composer, encoder, parts, score=lambda rows: rows @ vectors.T), vectors, tolerance)
    check_clauses(f"composer {composer}", case, CLAUSES)
    check_clauses(f"composer {composer}", _TraitsCase(COMPOSERS[composer], case.composer, case.queries[0], tolerance), TRAITS)


def each_query_has_one_composition(case: _ComposerCase) -> None:
    composed = case.compose()
    require(isinstance(composed, list), f"compose returned a {type(composed).__name__}, expected a list")
    require(len(composed) == len(case.queries), f"{len(case.queries)} queries gave {len(composed)}")
    for one in composed:
        require(isinstance(one, Composition), f"got a {type(one).__name__}, expected a Composition")


def no_queries_have_no_compositions(case: _ComposerCase) -> None:
    composed = case.composer.compose([])
    require(composed == [], f"compose([]) returned {composed!r:.80}")


def terms_are_unit_vectors_of_the_encoder(case: _ComposerCase) -> None:
    dim = case.vectors.shape[1]
    for one in case.compose():
        require(
            one.terms.shape == (len(one.names), dim), f"terms have shape {one.terms.shape}, expected ({len(one.names)}, {dim})"
        )
        lengths = np.linalg.norm(one.terms, axis=1)
        require(np.allclose(lengths, 1, rtol=0, atol=UNIT_TOLERANCE), f"terms have the lengths {lengths.round(3).tolist()}")


def base_weights_are_finite_and_not_all_zero(case: _ComposerCase) -> None:
    for one in case.compose():
        require(np.isfinite(one.weights).all(), f"got {one.term_weights}")
        require(any(one.weights) or not one.rule.uses_weights, f"got {one.term_weights}")


def equal_queries_have_equal_compositions(case: _ComposerCase) -> None:
    _require_equal(case, case.compose(), "composed twice")


def compositions_do_not_depend_on_the_batch(case: _ComposerCase) -> None:
    _require_equal(case, [one for query in case.queries for one in case.composer.compose([query])], "composed alone")


def compositions_are_in_the_order_of_queries(case: _ComposerCase) -> None:
    _require_equal(case, case.composer.compose(case.queries[::-1])[::-1], "composed in reverse")


def queries_are_not_changed(case: _ComposerCase) -> None:
    queries = case.queries
    case.composer.compose(queries)
    for number, (query, unchanged) in enumerate(zip(queries, case.vectors, strict=True)):
        require(np.array_equal(query.required_reference(), unchanged), f"compose changed the vector of query {number}")


def a_missing_input_is_an_error_that_says_so(case: _ComposerCase) -> None:
    query = case.queries[0]
    for given in (ComposerInput(prompt=query.prompt), ComposerInput(query.vector), ComposerInput(query.vector, query.prompt)):
        with suppress(OptionError):
            case.composer.compose([given])


def its_traits_tell_what_it_reads(case: _TraitsCase) -> None:
    without = {"reads_image": ComposerInput(prompt=case.query.prompt), "reads_prompt": replace(case.query, prompt=None)}
    for trait, query in without.items():
        if getattr(case.entry, trait):
            continue
        try:
            case.composer.compose([query])
        except OptionError as error:
            raise AssertionError(f"{trait} is False, but {error}") from error


def supports_pdv_tells_that_it_has_the_terms_of_pdv(case: _TraitsCase) -> None:
    (one,) = case.composer.compose([case.query])
    require(
        one.supports_pdv or not case.entry.supports_pdv,
        f"it is True, but the terms are {', '.join(one.names)}; register the composer with supports_pdv=False",
    )


def reads_paraphrases_tells_that_terms_are_means_over_wordings(case: _TraitsCase) -> None:
    """`mean_composition` of the compositions of all wordings; terms with names of their own may read the first wording alone."""
    if not case.entry.reads_paraphrases:
        return
    wordings = [replace(case.query, prompt=prompt) for prompt in WORDINGS]
    for count in (2, len(WORDINGS)):
        (one,) = case.composer.compose([replace(wordings[0], paraphrases=tuple(wordings[1:count]))])
        expected = mean_composition(case.composer.compose(wordings[:count]))
        what = f"{count} wordings"
        require(one.names == expected.names, f"{what}: the terms are {one.names}, expected {expected.names}")
        averaged = [row for row, name in enumerate(one.names) if name in AVERAGED]
        require_close(one.terms[averaged], expected.terms[averaged], case.tolerance, what)
        require(
            one.words == expected.words, f"{what}: the words are {one.words}, expected those of the first, {expected.words}"
        )


CLAUSES = (
    each_query_has_one_composition,
    no_queries_have_no_compositions,
    terms_are_unit_vectors_of_the_encoder,
    base_weights_are_finite_and_not_all_zero,
    equal_queries_have_equal_compositions,
    compositions_are_in_the_order_of_queries,
    compositions_do_not_depend_on_the_batch,
    queries_are_not_changed,
    a_missing_input_is_an_error_that_says_so,
)
TRAITS = (
    its_traits_tell_what_it_reads,
    supports_pdv_tells_that_it_has_the_terms_of_pdv,
    reads_paraphrases_tells_that_terms_are_means_over_wordings,
)


def _require_equal(case: _ComposerCase, composed: Sequence[Composition], how: str) -> None:
    """Raises AssertionError if compositions differ from those of all queries at once in more than rounding."""
    for number, (expected, one) in enumerate(zip(case.compose(), composed, strict=True)):
        what = f"query {number}, {how}"
        require(one.names == expected.names, f"{what}: the terms are {one.names}, expected {expected.names}")
        require(one.words == expected.words, f"{what}: the words are {one.words}, expected {expected.words}")
        require_close(one.terms, expected.terms, case.tolerance, what)
        weights_are_close = np.allclose(one.weights, expected.weights, rtol=0, atol=case.tolerance)
        require(weights_are_close, f"{what}: the weights are {one.term_weights}, expected {expected.term_weights}")
