"""Captions rewritten without a model: words that give way, words left out, and what else could be said."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mmretrieve import wardrobe
from mmretrieve.language.editing import insert_phrase, remove_phrase
from mmretrieve.language.lexicon import Lexicon, general_lexicon
from mmretrieve.language.rewriters import SwapRewriter
from mmretrieve.language.tokens import contains
from mmretrieve.language.vocabulary import GENERAL, Vocabulary, WordGroup
from mmretrieve.wardrobe.captions import caption, vocabulary

REWRITER = SwapRewriter(Vocabulary.read(GENERAL))
SMALL = SwapRewriter(
    Vocabulary("a {colour} {thing}", (WordGroup("colour", ("red", "blue")), WordGroup("thing", ("dress", "watche"))))
)

# caption | prompt | what the caption becomes | what is added; "=" is the prompt itself
REWRITES = """
a photo of a blue dress | in red | a photo of a red dress | =
a blue dress | an orange one | an orange dress | =
a photo of a blue dress | in the colour red | a photo of a red dress | =
a photo of a blue dress | the red version | a photo of a red dress | =
a photo of a blue dress | RED please | a photo of a red dress | =
a photo of a blue dress | a red dress | a photo of a red dress | =
a photo of a gray dress | in grey | a photo of a gray dress | =
a photo of a gray dress | in colour navy | a photo of a navy dress | =
a photo of a mustard dress | make it maroon | a photo of a maroon dress | =
a photo of an off white dress | in dark blue | a photo of a dark blue dress | =
a multicolored dress | in black | a black dress | =
a red and white dress | in blue | a blue dress | =
a red dress | in black and gold | a black and gold dress | =
a white dress on a bed | in red with long sleeves | a red dress on a bed | =
a photo of a black shirt | with red buttons | a photo of a black shirt | =
a photo of a black shirt | on a white background | a photo of a black shirt | =
a photo of a black shirt | make the background white | a photo of a black shirt | =
a photo of a black shoe | with red laces | a photo of a black shoe | =
a photo of a white shirt | what about red? | a photo of a red shirt | =
a photo of a white shirt | do you have this in red? | a photo of a red shirt | =
a photo of a white shirt | change white to red | a photo of a red shirt | =
a photo of a white shirt | a bit darker, more like grey | a photo of a grey shirt | =
a man in a red hat and a blue shirt | a green shirt | a man in a red hat and a green shirt | =
a striped dress | with dots | a dotted dress | =
a dress with stripes | dotted | a dress with dots | =
a striped dress | stripes | a striped dress | =
a plaid shirt | stripy | a stripy shirt | =
a floral skirt | plain | a plain skirt | =
a sleeveless blue shirt | in red with long sleeves | a long-sleeved red shirt | =
a blue dress with long sleeves | sleeveless | a blue sleeveless dress | =
a long dress | with long sleeves | a long dress | =
a shirt for men | for women | a shirt for women | =
a men's shirt | for women | a women's shirt | =
a blue shirt for men | in navy and for women | a navy shirt for women | =
a leather bag | in denim | a denim bag | =
a gold ring | in silver | a silver ring | =
a casual shirt | formal | a formal shirt | =
a house by day | at night | a house at night | =
a house in winter | in summer | a house in summer | =
a cat in a kitchen | in the bedroom | a cat in a bedroom | =
two dogs on a beach | three dogs | three dogs on a beach | =
a long dress | shorter | a knee-length dress | =
a short dress | a bit longer please | a knee-length dress | =
a short dress | shorter | a short dress | =
a woman with long hair | shorter | a woman with long hair | =
a shirt with long sleeves | shorter sleeves | a shirt with three-quarter sleeves | =
a blue dress | darker | a dark blue dress | =
a dark blue dress | lighter | a blue dress | =
a white dress | darker | a white dress | =
a small dog | bigger | a medium-sized dog | =
a casual shirt | more formal | a smart casual shirt | =
a formal shirt | less formal | a smart casual shirt |
a black dress | as a skirt | a black skirt | =
a black dress | a skirt instead | a black skirt | =
a black dress | make it a skirt | a black skirt | =
a black dress | turn it into a skirt | a black skirt | =
a black dress | but a skirt | a black skirt | =
a black dress | skirt | a black skirt | =
a black dress | the same as a bag | a black bag | =
a black dress | a red skirt | a red skirt | =
a black frock | as a tee | a black t-shirt | =
a red shirt | as trousers | a red pair of trousers | =
a photo of jeans | as a skirt | a photo of a skirt | =
a black dress | with a belt | a black dress | =
a black dress | holding a cup | a black dress | =
a black dress | next to a dog | a black dress | =
a woman in a red dress | a blue shirt | a woman in a blue shirt | =
a woman in a red dress | a man | a man in a red dress | =
a bed in a room | has a lamp | a bed in a room | =
a cat on top of a chair | is orange | a cat on top of a chair | =
a car | orange | a car | =
an apple | an orange | an orange | =
a fish tank | a dog | a fish tank | =
a black shirt | dress instead of shirt | a black dress | dress
a man on a bench | has a bed instead of a bench | a man on a bed | has a bed
a shelf full of cakes | has pizzas instead of cakes | a shelf full of pizzas | has pizzas
a blue dress | in red instead of blue | a red dress | in red
a red and white dress | in blue instead of red | a blue and white dress | in blue
a photo of a red striped dress | without stripes | a photo of a red dress |
a photo of a blue striped dress | in red without stripes | a photo of a red dress | in red
a red dress | anything but red | a dress |
a short-sleeved dress | without sleeves | a sleeveless dress |
a dress | without sleeves | a dress |
a floral dress | without a pattern | a plain dress |
a woman wearing a hat | lose the hat | a woman |
a long blue dress | not so long, in red | a red dress | in red
a long dress with long sleeves | less long | a knee-length dress with long sleeves |
a peacock next to a person | no people, next to a car | a peacock | next to a car
a red dress | no dress | a red dress |
a red shirt | the same but without the logo | a red shirt |
"""


def table(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")] for line in text.strip().splitlines()]


@pytest.mark.parametrize(("said", "prompt", "swapped", "added"), table(REWRITES))
def test_captions_are_rewritten(said: str, prompt: str, swapped: str, added: str) -> None:
    expected = f"{swapped}, {prompt if added == '=' else added}" if added else swapped
    assert REWRITER.rewrite([said], [prompt]) == [expected]


def test_words_of_the_vocabulary_are_preferred() -> None:
    captions, prompts = ["a blue dress", "a red dress", "a red dress"], ["in red", "as a watch", "in maroon"]
    rewritten = ["a red dress, in red", "a red watche, as a watch", "a maroon dress, in maroon"]  # maroon is a general colour
    assert SMALL.rewrite(captions, prompts) == rewritten


def test_every_rewrite_of_the_wardrobe_describes_the_target() -> None:
    """All 500 queries: the caption becomes that of the garment that was asked for, and the prompt is added as it is."""
    garments = {drawing.id: drawing.garment for drawing in wardrobe.drawings()}
    queries = wardrobe.queries()
    captions, prompts = [caption(garments[query.reference]) for query in queries], [query.prompt for query in queries]
    expected = [f"{caption(garments[query.targets[0]])}, {query.prompt}" for query in queries]
    assert SwapRewriter(vocabulary()).rewrite(captions, prompts) == expected


# caption | phrase | caption without it
LEFT_OUT = """
a photo of a red striped dress | stripes | a photo of a red dress
a photo of a red dress with stripes | striped | a photo of a red dress
a photo of an orange dress | orange | a photo of a dress
a photo of a red orange | red | a photo of an orange
a red and white dress | white | a red dress
a red and white dress | red | a white dress
a dog and a cat | dog | a cat
a dog and a cat | cat | a dog
a dress with dots, stripes and checks | dots | a dress with stripes and checks
a blue dress with a red belt and long sleeves | belt | a blue dress with long sleeves
a blue dress with a red belt and long sleeves | long sleeves | a blue dress with a red belt
a woman wearing a hat next to a car | hat | a woman next to a car
a dress with stripes and on a bed | stripes | a dress on a bed
a dress on a white background | white background | a dress
a shirt, striped, on a bed | striped | a shirt, on a bed
a red shirt for men | men | a red shirt
a man in a suit throwing a ball | suit | a man throwing a ball
a truck filled with bananas is parked | bananas | a truck is parked
a shirt with short sleeves | sleeves | a sleeveless shirt
a short-sleeved orange shirt | sleeves | a sleeveless orange shirt
a photo of a red dress | dress | a photo of a red dress
two black and white cats laying | cats | two black and white cats laying
a dress | belt | a dress
"""


@pytest.mark.parametrize(("said", "phrase", "expected"), table(LEFT_OUT))
def test_phrases_are_removed(said: str, phrase: str, expected: str) -> None:
    assert remove_phrase(said, phrase) == expected


@pytest.mark.parametrize(
    ("said", "phrase", "expected"),
    [
        ("a photo of a red dress", "striped", "a photo of a red striped dress"),
        ("a photo of a red dress", "stripes", "a photo of a red dress with stripes"),
        ("a red striped dress", "dots", "a red dotted dress"),
        ("a red dress", "with stripes", "a red dress with stripes"),
        ("a dress", "in orange", "an orange dress"),
        ("a dress", "a belt", "a dress with a belt"),
        ("a dress", "for men", "a dress for men"),
        ("a dress with a belt", "belt", "a dress with a belt"),
        ("", "red", "red"),
    ],
)
def test_phrases_are_inserted(said: str, phrase: str, expected: str) -> None:
    assert insert_phrase(said, phrase) == expected


def test_alternatives_are_the_rest_of_a_class() -> None:
    alternatives = general_lexicon().alternatives
    assert alternatives("mini") == alternatives("a short one") == ["knee-length", "long"]
    assert alternatives("sleeves") == ["sleeveless"]
    assert alternatives("with long sleeves")[0] == "without sleeves"
    assert {"plain", "checked", "dotted"} <= set(alternatives("striped"))
    assert Lexicon.of(vocabulary()).alternatives("striped")[:5] == ["plain", "checked", "dotted", "zigzag", "diamond"]
    assert alternatives("xyzzy") == alternatives("") == alternatives("shorter") == alternatives("red stripes") == []


def test_classes_have_no_form_twice() -> None:
    for each in Lexicon.of().classes:
        forms = [form for kinds in each.members for forms in kinds for form in forms]
        assert len(forms) == len(set(forms)) or each.name in ("wearer", "thing"), each.name
        assert all(form.strip() for form in forms)


SPEECH = "a an the red blue white dress shirt stripes striped with without no in and or , of long sleeves dog men's on"
WORDS = st.lists(
    st.sampled_from(SPEECH.split()),
    max_size=9,
).map(" ".join)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.one_of(WORDS, st.text(max_size=30)), st.one_of(WORDS, st.text(max_size=30)))
@example("a red", "no red")
@example("a\nred dress", "in\nblue")
def test_anything_can_be_rewritten(said: str, prompt: str) -> None:
    rewritten = REWRITER.rewrite([said], [prompt])[0]
    assert len(rewritten.splitlines()) <= 1
    remaining = REWRITER.compiler.desired_text(" ".join(prompt.splitlines()))
    assert rewritten.endswith(remaining)
    for edit in (remove_phrase, insert_phrase):
        assert isinstance(edit(said, prompt), str)


@given(st.sampled_from(["a photo of a {}", "a {} on a bed"]), st.sampled_from(["belt", "hood", "zips", "stripes", "dots"]))
def test_rewrites_never_contain_forbidden_phrases(sentence: str, unwanted: str) -> None:
    for prompt in (f"without {unwanted}", f"in red but not {unwanted}", f"remove the {unwanted}"):
        rewritten = REWRITER.rewrite([sentence.format(f"blue dress with {unwanted}")], [prompt])[0]
        assert not contains(rewritten, unwanted)
        assert remove_phrase(rewritten, unwanted) == rewritten


@pytest.mark.parametrize("edit", [remove_phrase, insert_phrase])
def test_editing_twice_changes_nothing_more(edit: Callable[[str, str], str]) -> None:
    for said, phrase, _ in table(LEFT_OUT):
        once = edit(said, phrase)
        assert edit(once, phrase) == once
