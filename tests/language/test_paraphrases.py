"""Paraphrases from templates: which wordings a prompt gets, and that they ask for the same."""

from __future__ import annotations

import doctest
import re
from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest

import mmretrieve as mm
from mmretrieve import wardrobe
from mmretrieve.errors import MMRetrieveError, OptionError
from mmretrieve.language import paraphrases
from mmretrieve.language.files import FileParaphraser
from mmretrieve.language.llm.roles import EndpointParaphraser
from mmretrieve.language.options import LanguageOptions, paraphraser_from
from mmretrieve.language.paraphrases import TemplateParaphraser, paraphrase_prompts
from mmretrieve.language.rewriters import SwapRewriter
from mmretrieve.language.role_compiler import RuleCompiler
from mmretrieve.language.vocabulary import GENERAL, Vocabulary
from mmretrieve.wardrobe.attributes import choices
from mmretrieve.wardrobe.captions import caption, change_prompt, differences, vocabulary

# prompt | its paraphrases
PARAPHRASES = """
in red | make it red + the same but in red + a red one + change the color to red + I want it in red
make it orange | in orange + the same but in orange + an orange one + change the color to orange + I want it in orange
IN RED, please | in RED + make it RED + the same but in RED + a RED one + change the color to RED
do you have this in dark blue? | in dark blue + make it dark blue + the same but in dark blue + a dark blue one + change the color to dark blue
longer | make it longer + the same but longer + a longer one + I want it longer + this one, but longer
darker | make it darker + the same but darker + a darker one + I want it darker + this one, but darker
a bit darker | make it a bit darker + the same but a bit darker + I want it a bit darker + this one, but a bit darker + like this but a bit darker
less formal | make it less formal + the same but less formal + a less formal one + I want it less formal + this one, but less formal
more red | make it more red + the same but more red + I want it more red + this one, but more red + like this but more red
striped with long sleeves | make it striped with long sleeves + the same but striped with long sleeves + I want it striped with long sleeves + this one, but striped with long sleeves + like this but striped with long sleeves
with red buttons | the same but with red buttons + one with red buttons + I want it with red buttons + this one, but with red buttons + show me one with red buttons
without stripes | the same but without stripes + one without stripes + I want it without stripes + this one, but without stripes + show me one without stripes
in navy instead of red | the same but in navy instead of red + one in navy instead of red + I want it in navy instead of red + this one, but in navy instead of red + show me one in navy instead of red
in black and gold | the same but in black and gold + one in black and gold + I want it in black and gold + this one, but in black and gold + show me one in black and gold
as a skirt | a skirt + make it a skirt + I want a skirt + how about a skirt + change it to a skirt
in the same blue | the same but in the same blue + this one, but in the same blue
an orange | make it an orange + I want an orange + how about an orange + change it to an orange + show me an orange
"""
UNKNOWN = (
    "make the background white",
    "white background",
    "two dogs",
    "two",
    "dress",
    "kitchen",
    "summer",
    "night",
    "remove the hat",
    "not so shiny",
    "no stripes",
    "anything but blue",
    "keep the collar",
    "the same color but longer",
    "swap the bag and the hat",
)
PROMPTS = (
    "in red, without stripes",
    "with long sleeves, not in blue",
    "shorter but not in red",
    "without stripes or dots",
    "in red instead of blue",
    "a dress without a belt",
    "darker and without sleeves",
    "for women, not for men",
    "striped, no dots",
)


@pytest.mark.parametrize("row", PARAPHRASES.strip().splitlines())
def test_paraphrases(row: str) -> None:
    prompt, expected = row.split(" | ")
    assert TemplateParaphraser().paraphrase([prompt], 5) == [expected.split(" + ")]


def test_a_prompt_of_another_form_has_no_paraphrases() -> None:
    assert TemplateParaphraser().paraphrase(UNKNOWN, 5) == [[]] * len(UNKNOWN)


def test_counts_and_order() -> None:
    paraphraser = TemplateParaphraser()
    assert paraphraser.paraphrase([], 5) == []
    assert paraphraser.paraphrase(["in red", "two dogs", "longer"], 1) == [["make it red"], [], ["make it longer"]]


@pytest.mark.parametrize("prompt", PROMPTS)
def test_a_paraphrase_forbids_what_its_prompt_forbids(prompt: str) -> None:
    compiler = RuleCompiler()
    (texts,) = TemplateParaphraser().paraphrase([prompt], 5)
    assert len(texts) == 5
    for text in texts:
        assert compiler.roles(text).forbidden == compiler.roles(prompt).forbidden != ()


def test_a_paraphrase_changes_captions_as_its_prompt_does() -> None:
    """The rewriter reads prompts by itself: the caption that it edits is the same for every wording."""
    for rewriter in (SwapRewriter(vocabulary()), SwapRewriter(Vocabulary.read(GENERAL))):
        paraphraser, compared = TemplateParaphraser(rewriter.lexicon, rewriter.compiler), 0
        for reference, prompt in _wardrobe_prompts(300):
            (texts,) = paraphraser.paraphrase([prompt], 5)
            expected, *edited = (_edited_caption(rewriter, reference, text) for text in (prompt, *texts))
            assert edited == [expected] * len(texts), (reference, prompt)
            compared += len(texts)
        assert compared > 1_000


class FixedParaphraser:
    """A paraphraser that returns what it was given."""

    def __init__(self, answer: object) -> None:
        self.answer = answer

    def paraphrase(self, prompts: Sequence[str], count: int) -> list[list[str]]:  # noqa: ARG002
        return self.answer  # type: ignore[return-value]


def test_answers_are_cleaned() -> None:
    answer = [["in Red", " make it red ", "", "MAKE  IT red", "a red one", "red, please"], ["longer"]]
    assert paraphrase_prompts(FixedParaphraser(answer), ["in red", "longer"], 2) == [("make it red", "a red one"), ()]


@pytest.mark.parametrize("answer", [[], [["a"], ["b"]], ["in red"], [None], [[1]]])
def test_a_wrong_answer_is_one_clear_line(answer: object) -> None:
    message = f"a paraphraser must return a list of texts for each of 1 prompts, got {answer!r}"
    with pytest.raises(OptionError, match=f"^{re.escape(message)}$"):
        paraphrase_prompts(FixedParaphraser(answer), ["in red"], 2)


@pytest.mark.parametrize("prompt", ["as a skirt", "a red skirt", "an orange one", "a dress without a belt", "a longer one"])
def test_a_paraphrase_replaces_the_noun_that_its_prompt_replaces(prompt: str) -> None:
    rewriter = SwapRewriter(Vocabulary.read(GENERAL))
    (texts,) = TemplateParaphraser(rewriter.lexicon, rewriter.compiler).paraphrase([prompt], 5)
    reference = "a photo of a short blue dress with a belt"
    assert [_edited_caption(rewriter, reference, text) for text in texts] == [_edited_caption(rewriter, reference, prompt)] * 5


def test_examples() -> None:
    result = doctest.testmod(paraphrases)
    assert result.attempted
    assert not result.failed


def _wardrobe_prompts(count: int) -> list[tuple[str, str]]:
    """Captions of random drawings, and prompts that ask for an attribute of another one."""
    random, cases = Random(0), []
    while len(cases) < count:
        reference, target = (drawing.garment for drawing in random.sample(wardrobe.drawings(), 2))
        names = [name for name in differences(reference, target) if name in choices(target.kind)]
        if names:
            cases.append((caption(reference), change_prompt(target, [random.choice(names)], random)))
    return cases


def _edited_caption(rewriter: SwapRewriter, reference: str, prompt: str) -> str:
    """The rewrite without the prompt that is appended to it."""
    (rewrite,) = rewriter.rewrite([reference], [prompt])
    return rewrite.removesuffix(rewriter.compiler.desired_text(prompt)).removesuffix(", ")


# By name, from a file and by a model


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("p.json", '{"in red": ["make it red", "a red one"], "longer": "more length"}'),
        ("p.jsonl", '{"prompt": "in red", "paraphrases": ["make it red"]}\n{"prompt": "in  RED", "paraphrases": "a red one"}\n'
                    '{"prompt": "longer", "paraphrases": ["more length"]}'),
        ("p.csv", "prompt,paraphrase\nin red,make it red\nin red,a red one\nlonger,more length\n"),
    ],
)  # fmt: skip
def test_paraphrases_come_from_a_file(name: str, content: str, encoder: mm.Encoder, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(content)
    paraphraser = paraphraser_from(LanguageOptions(paraphraser=str(path)), encoder)
    assert paraphraser is not None
    assert paraphraser.paraphrase(["longer", "In red"], 5) == [["more length"], ["make it red", "a red one"]]
    assert paraphraser.paraphrase(["in red"], 1) == [["make it red"]]
    with pytest.raises(
        MMRetrieveError, match=r"1 of 2 prompts' paraphrases are missing or ambiguous: 'in blue'; add them, or give"
    ):
        paraphraser.paraphrase(["in red", "in blue"], 2)
    assert FileParaphraser.read(path, allow_missing=True).paraphrase(["in blue"], 2) == [[]]


def test_a_file_without_paraphrases_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    path.write_text('[{"prompt": "in red", "caption": "a dress"}]')
    with pytest.raises(OptionError, match="no field for the rewrite; give --rewrite-field NAME, one of: prompt, caption"):
        FileParaphraser.read(path)


def test_paraphrasers_have_names(encoder: mm.Encoder, retriever: mm.Retriever) -> None:
    assert paraphraser_from(LanguageOptions(), encoder) is None
    assert isinstance(paraphraser_from(LanguageOptions(paraphraser="templates"), encoder), TemplateParaphraser)
    asking = paraphraser_from(LanguageOptions(paraphraser="endpoint", model="m", endpoint="http://127.0.0.1:9/v1"), encoder)
    assert isinstance(asking, EndpointParaphraser)
    with pytest.raises(OptionError, match="unknown paraphraser 'template'; did you mean 'templates'"):
        LanguageOptions(paraphraser="template")
    query = {"prompt": "in red", "k": 5, "paraphrases": 3}
    named = mm.Retriever(retriever.gallery, retriever.encoder, parts=mm.Parts(paraphraser="templates"))
    assert named.search(**query) == retriever.search(**query)
    unknown = mm.Retriever(retriever.gallery, retriever.encoder, parts=mm.Parts(paraphraser="rules"))
    with pytest.raises(OptionError, match="unknown paraphraser 'rules'; choose from: templates"):
        unknown.search(**query)


@pytest.mark.usefixtures("registered")
def test_a_paraphraser_can_be_registered(retriever: mm.Retriever) -> None:
    mm.register_paraphraser("mine", lambda vocabulary: FixedParaphraser([["a blue one"]]))  # noqa: ARG005
    named = mm.Retriever(retriever.gallery, retriever.encoder, parts=mm.Parts(paraphraser="mine"))
    assert "2 wordings of 'in red' were averaged" in str(named.search(prompt="in red", k=2, paraphrases=2).note)
