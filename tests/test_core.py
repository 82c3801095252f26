"""vectors, composition, scoring: formulas, laws, refusals."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mmretrieve as mm
from mmretrieve import scoring
from mmretrieve.composition import Composition
from mmretrieve.directions import PDV, automatic_alpha_image, pdv, pdv_weights, plane_weights
from mmretrieve.errors import OptionError, VectorError
from mmretrieve.scoring import MAX_DOT_TERMS, linear, linear_contributions, term_scores, top_k
from mmretrieve.vectors import NOT_FINITE, ROW_BATCH_SIZE, ZERO_VECTOR, as_rows, bad_rows, check_unit, unit

RANDOM = np.random.default_rng(0)
A, B, C = (RANDOM.normal(size=(7, 16)) * 5 for _ in range(3))
alphas = st.floats(-3, 3)
betas = st.floats(0, 1)


def normalised(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@given(alphas, alphas, betas)
def test_pdv_is_the_published_formula(alpha_image: float, alpha_text: float, beta: float) -> None:
    image, text, composed = map(normalised, (A, B, C))
    delta = composed - text
    expected = normalised((1 - beta) * (image + alpha_image * delta) + beta * (text + alpha_text * delta))
    np.testing.assert_allclose(pdv(A, B, C, alpha_image=alpha_image, alpha_text=alpha_text, beta=beta), expected, atol=1e-6)


def test_corners_of_the_plane_are_the_terms() -> None:
    np.testing.assert_allclose(pdv(A, B, C), normalised(C), atol=1e-6)
    np.testing.assert_allclose(pdv(A, B, C, alpha_image=0, beta=0), normalised(A), atol=1e-6)
    np.testing.assert_allclose(pdv(A, B, C, alpha_text=0, beta=1), normalised(B), atol=1e-6)


@given(alphas, alphas, betas)
def test_pdv_weights_are_a_point_of_the_plane_and_sum_to_one(alpha_image: float, alpha_text: float, beta: float) -> None:
    weights = pdv_weights(alpha_image=alpha_image, alpha_text=alpha_text, beta=beta)
    assert sum(weights) == pytest.approx(1)
    assert weights == plane_weights(beta, PDV(alpha_image=alpha_image, alpha_text=alpha_text, beta=beta).gamma)


def test_published_setting_by_hand() -> None:
    gamma = 0.25 * 1.4 + 0.75 * 1.2
    assert pdv_weights(alpha_image=1.4, alpha_text=1.2, beta=0.75) == pytest.approx((0.25, 0.75 - gamma, gamma))


def test_pdv_result_is_unit_float32_and_inputs_are_untouched() -> None:
    before = A.copy()
    result = pdv(A, B, C, beta=0.5)
    assert result.dtype == np.float32
    assert result.flags.c_contiguous
    np.testing.assert_allclose(np.linalg.norm(result, axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(A, before)
    assert pdv(np.empty((0, 4)), np.empty((0, 4)), np.empty((0, 4))).shape == (0, 4)


@pytest.mark.parametrize(
    "knobs",
    [{"beta": -0.01}, {"beta": 1.01}, {"beta": math.nan}, {"alpha_image": math.inf}, {"alpha_text": math.nan}, {"beta": "1"}],
)
def test_parameters_out_of_range_are_refused(knobs: dict[str, float]) -> None:
    with pytest.raises(OptionError, match=next(iter(knobs))):
        pdv(A, B, C, **knobs)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.zeros((7, 16)), "zero vector"),
        (np.full((7, 16), np.nan), "NaN"),
        (A[:6], "same shape"),
        (A[0], "shape"),
        ("words", "numbers"),
    ],
)
def test_invalid_vectors_raise_vector_error(bad: object, message: str) -> None:
    with pytest.raises(VectorError, match=message):
        pdv(A, bad, C)
    assert issubclass(VectorError, mm.MMRetrieveError)
    assert issubclass(mm.MMRetrieveError, ValueError)


@pytest.mark.parametrize("name", ["image", "text", "composed"])
def test_the_term_that_is_wrong_is_named(name: str) -> None:
    terms = {"image": A, "text": B, "composed": C}
    with pytest.raises(VectorError, match=f"^{name}: row 0 is a zero vector"):
        pdv(**terms | {name: np.zeros((7, 16))})
    with pytest.raises(VectorError, match="same shape"):
        pdv(**terms | {name: A[:6]})


def test_a_sum_that_cancels_is_refused() -> None:
    with pytest.raises(VectorError, match="zero"):
        pdv([[1.0, 0]], [[1.0, 0]], [[-1.0, 0]], beta=0, alpha_image=0.5)


def test_automatic_alpha_is_the_closest_point() -> None:
    alpha = automatic_alpha_image(A, B, C)
    image, text, composed = map(normalised, (A, B, C))
    delta = composed - text

    def gap(a: np.ndarray) -> np.ndarray:
        return np.linalg.norm(image + a[:, None] * delta - composed, axis=1)

    for step in (-1e-3, 1e-3):
        assert (gap(alpha) < gap(alpha + step)).all()
    np.testing.assert_allclose(automatic_alpha_image([[1.0, 0]], [[0.0, -1]], [[0.0, 1]]), [0.5])  # delta (0, 2), gap (-1, 1)
    # delta (−0.2, 0.6), gap (0.8, −0.4)
    np.testing.assert_allclose(automatic_alpha_image([[0.0, 1]], [[1.0, 0]], [[0.8, 0.6]]), [-1], atol=1e-6)
    with pytest.raises(VectorError, match="no direction"):
        automatic_alpha_image(A, B, B)


def test_unit_by_hand_and_the_contract() -> None:
    np.testing.assert_allclose(unit([[3, 4]]), [[0.6, 0.8]])
    with pytest.raises(VectorError, match="length 5"):
        check_unit([[3.0, 4.0]], "x")
    with pytest.raises(VectorError, match="expected 3 columns"):
        unit([[3, 4]], dim=3)


NOT_REAL = r"^x: expected an array of real numbers of shape \(n, d\), got "


@pytest.mark.parametrize("function", [as_rows, unit, check_unit])
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ("words", NOT_REAL + "(str|ndarray)$"),
        ([[1], [1, 2]], NOT_REAL + "list$"),
        ([[1j]], NOT_REAL + "list$"),
        ([["a"]], NOT_REAL + "(list|ndarray)$"),
        ([1.0], r"^x: expected shape \(n, d\), got \(1,\)$"),
        (np.ones((2, 0)), r"^x: expected shape \(n, d\), got \(2, 0\)$"),
        (np.ones((ROW_BATCH_SIZE + 1, 1, 1)), r"^x: expected shape \(n, d\), got \(\d+, 1, 1\)$"),
        ([[1.0], [math.nan]], "^x: row 1 contains NaN, infinity or a number beyond the range of float(32|64)$"),
    ],
)
def test_what_is_not_rows_is_named(function: Callable[..., object], values: object, message: str) -> None:
    with pytest.raises(VectorError, match=message):
        function(values, "x")
    with pytest.raises(VectorError, match=r"^x: expected 3 columns, got 2$"):
        function([[1.0, 0.0]], "x", dim=3)


def test_rows_of_any_length_have_a_direction() -> None:
    scales = np.array([[1e300], [1e-300], [1.0], [1e120], [1e-120]])
    np.testing.assert_allclose(unit(scales * [[3, 4]]), [[0.6, 0.8]] * len(scales), rtol=1e-7)


def test_rows_are_float32_and_never_overflow_silently() -> None:
    assert as_rows([[1, 2]], "x").dtype == np.float32
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(VectorError, match=r"^x: row 0 contains .* beyond the range of float32$"):
            as_rows([[1e300]], "x")
    with pytest.raises(VectorError, match=r"^vectors: row 1 is a zero vector"):
        unit([[2.0], [0.0]])


def test_rows_of_all_batches_are_normalized_and_numbered() -> None:
    rows = RANDOM.normal(size=(2 * ROW_BATCH_SIZE + 3, 2))
    result = unit(rows)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, normalised(rows), atol=1e-6)
    last = len(rows) - 1
    for bad, message in ((0.0, "is a zero vector"), (math.nan, "contains NaN")):
        rows[last] = bad
        with pytest.raises(VectorError, match=f"^x: row {last} {message}"):
            unit(rows, "x")
    with pytest.raises(VectorError, match=r"^x: expected 3 columns, got 2$"):
        unit(rows[:-1], "x", dim=3)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int8", "uint8", "bool"])
def test_rows_without_direction_are_found_in_all_batches(dtype: str) -> None:
    rows = np.ones((2 * ROW_BATCH_SIZE + 3, 2), dtype)
    rows[[3, 4], [0, 1]] = 0  # one zero in a row is no zero vector
    rows[[0, ROW_BATCH_SIZE + 1, len(rows) - 1]] = 0
    expected = dict.fromkeys([0, ROW_BATCH_SIZE + 1, len(rows) - 1], ZERO_VECTOR)
    if dtype.startswith("float"):
        rows[[7, 2 * ROW_BATCH_SIZE], [1, 0]] = math.nan, math.inf
        expected |= dict.fromkeys([7, 2 * ROW_BATCH_SIZE], NOT_FINITE)
    assert bad_rows(rows) == expected


@pytest.mark.parametrize("values", [[[1], [1, 2]], [0.0], np.zeros((1, 1, 1)), np.zeros((1, 1), complex), [["a"]], "a"])
def test_rows_that_are_none_are_left_to_unit(values: object) -> None:
    assert bad_rows(values) == {}
    with pytest.raises(VectorError, match="expected"):
        unit(values)


@pytest.mark.parametrize(("lengths", "worst"), [((1, 0.2, 1.5), 1), ((1.9, 0.9, 1), 0)])
def test_the_row_that_is_furthest_from_unit_is_named(lengths: tuple[float, ...], worst: int) -> None:
    with pytest.raises(VectorError, match=f"^x: expected unit rows, row {worst} has length {lengths[worst]} "):
        check_unit([[length, 0] for length in lengths], "x")


def test_term_scores_are_float32_in_all_batches() -> None:
    rows = unit(RANDOM.normal(size=(2 * ROW_BATCH_SIZE + 3, 2)))
    terms = unit(RANDOM.normal(size=(2, 2)))
    scores = term_scores(terms, rows)
    assert scores.dtype == np.float32
    np.testing.assert_array_equal(scores, (terms.astype(np.float64) @ rows.T.astype(np.float64)).astype(np.float32))


def composition() -> Composition:
    return Composition(("image", "text", "composed"), unit(RANDOM.normal(size=(3, 8))), (0.0, 0.0, 1.0))


def test_composition_vector_scores_as_its_terms_do() -> None:
    rows = unit(RANDOM.normal(size=(50, 8)))
    query = composition().with_pdv(PDV(alpha_image=1.4, alpha_text=1.2, beta=0.75))
    np.testing.assert_allclose(rows @ query.vector, linear(term_scores(query.terms, rows), query.weights), atol=1e-6)


def test_composition_refuses_what_it_cannot_weigh() -> None:
    with pytest.raises(OptionError, match="weights name 'sun', but this query has only: image, text, composed"):
        composition().weighted({"sun": 1})
    with pytest.raises(OptionError, match="captions"):
        Composition(("image",), unit([[1.0, 2.0]]), (1.0,)).with_pdv(PDV())
    with pytest.raises(VectorError, match="its own name"):
        Composition(("a", "a"), unit([[1.0, 2.0], [1, 2]]), (1.0, 1.0))


def test_contributions_are_weight_times_term_score() -> None:
    scores = np.array([[0.5, 1.0], [1.0, 0.25]], dtype=np.float32)
    np.testing.assert_allclose(linear_contributions(scores, (2.0, -1.0)), [[1.0, 2.0], [-1.0, -0.25]])
    np.testing.assert_allclose(linear(scores, (2.0, -1.0)), [1.0 - 1.0, 2.0 - 0.25])


@settings(max_examples=200)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=40), st.integers(1, 50))
def test_top_k_is_a_stable_sort(values: list[int], k: int) -> None:
    expected = sorted(range(len(values)), key=lambda i: (-values[i], i))[:k]
    assert top_k(np.array(values, dtype=np.float32), k).tolist() == expected


@pytest.mark.parametrize("count", [0, 1, MAX_DOT_TERMS, MAX_DOT_TERMS + 1])
def test_few_and_many_terms_have_the_same_scores_in_any_batch(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    terms, rows = unit(RANDOM.normal(size=(count + 1, 48)))[:count], unit(RANDOM.normal(size=(70, 48)))
    expected = (terms.astype(np.float64) @ rows.astype(np.float64).T).astype(np.float32)
    for size in (1, 7, 100):
        monkeypatch.setattr(scoring, "ROW_BATCH_SIZE", size)
        np.testing.assert_allclose(term_scores(terms, rows), expected, rtol=0, atol=6e-8)


@pytest.mark.parametrize("k", [0, -1, 1.5, True, None])
def test_k_must_be_a_whole_positive_number(k: object) -> None:
    with pytest.raises(OptionError, match="k must be"):
        top_k(np.zeros(3), k)


def test_equal_vectors_get_equal_scores_at_any_position() -> None:
    rows = unit(RANDOM.normal(size=(1000, 33)))
    rows[[3, 500, 999]] = rows[0]
    terms = unit(RANDOM.normal(size=(4, 33)))
    whole = term_scores(terms, rows)
    assert len({tuple(whole[:, i]) for i in (0, 3, 500, 999)}) == 1
    np.testing.assert_array_equal(whole[:, 500:510], term_scores(terms, rows[500:510]))


def test_rows_of_extreme_lengths_are_normalized() -> None:
    for scale in (1e-320, 1e-200, 1e300):
        np.testing.assert_allclose(
            pdv(A[:1] * scale, B[:1], C[:1], beta=0.5),
            pdv(A[:1], B[:1], C[:1], beta=0.5),
            atol=1e-2 if scale == 1e-320 else 1e-6,
        )
    with pytest.raises(VectorError, match="real numbers"):
        pdv(A * 1j, B, C)
    with pytest.raises(OptionError, match="beta"):
        pdv(A, B, C, beta=10**400)
