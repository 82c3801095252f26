"""How prompts are read without a model: what they want, keep and forbid, and what remains to be said of them."""

from __future__ import annotations

import doctest

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mmretrieve.composer_input import ComposerInput
from mmretrieve.language import editing, fields, files, lexicon, rewriters, role_compiler, tokens, vocabulary
from mmretrieve.language.base import Roles
from mmretrieve.language.captioners import gallery, tagger
from mmretrieve.language.llm import client
from mmretrieve.language.role_compiler import RuleCompiler

# prompt | desired | preserved | forbidden | what remains to be said; phrases are separated by "+"
READINGS = """
in red | in red | | | in red
is brown | brown | | | is brown
make it brown | brown | | | make it brown
I want it in brown | in brown | | | I want it in brown
can I have this in brown please | in brown | | | can I have this in brown please
do you have this in red | in red | | | do you have this in red
how about in red | in red | | | how about in red
show me this with long sleeves | long sleeves | | | show me this with long sleeves
like this but more formal | more formal | | | like this but more formal
shorter | shorter | | | shorter
a shorter one | a shorter one | | | a shorter one
as a dress | as a dress | | | as a dress
but for men | for men | | | but for men
in red or blue | in red or blue | | | in red or blue
not only red | not only red | | | not only red
not just red but shiny | not just red + shiny | | | not just red but shiny
has a notebook and is nothing like it | a notebook + nothing like it | | | has a notebook and is nothing like it
keep the neckline | | neckline | | keep the neckline
the same colour | | colour | | the same colour
same shape | | shape | | same shape
in the same colour, longer | longer | colour | | in the same colour, longer
the same in navy | in navy | | | the same in navy
the same but red | red | | | the same but red
the same for women | for women | | | the same for women
the same as a bag | as a bag | | | the same as a bag
the same dress in red | in red | dress | | the same dress in red
same one but longer | longer | | | same one but longer
exactly this in red | in red | | | exactly this in red
the same except in red | in red | | | the same except in red
without stripes | | | stripes |
w/o stripes | | | stripes |
no stripes | | | stripes |
not striped | | | striped |
not so long | | | long |
not too formal | | | formal |
isn't as long | | | long |
less formal | | | formal |
a bit less formal | | | formal |
fewer buttons | | | buttons |
no longer blue | | | blue |
it isn’t red | | | red |
isnt red | | | red |
it shouldn't be red | | | red |
doesn't have a hood | | | hood |
hasn't got a hood | | | hood |
is not wearing glasses | | | glasses |
I don't want any stripes | | | stripes |
I don't like the collar | | | collar |
there are no people | | | people |
remove the belt | | | belt |
please remove the belt | | | belt |
could you remove the text | | | text |
lose the hat | | | hat |
drop the belt | | | belt |
drop shoulder sleeves | drop shoulder sleeves | | | drop shoulder sleeves
get rid of the logo | | | logo |
take off the hat | | | hat |
take the hat off | | | hat |
take away the buttons | | | buttons |
with the belt removed | | | belt |
free of logos | | | logos |
logo-free | | | logo |
anything but red | | | red |
any colour but red | | | red |
any color except for blue | | | blue |
except the belt | | | belt |
minus the belt | | | belt |
nothing formal | | | formal |
not with a belt | | | belt |
not the blue one | | | blue |
not in red | | | red |
one without sleeves | | | sleeves |
something similar without sleeves | | | sleeves |
a dress that has no sleeves | a dress | | sleeves | a dress
in blue instead of red | in blue | | red | in blue
red rather than blue | red | | blue | red
red but not shiny | red | | shiny | red
not red but blue | blue | | red | blue
dress instead of shirt | dress | | shirt | dress
instead of a dog, a cat | a cat | | dog | a cat
replace the dog with a cat | a cat | | dog | a cat
swap the hat for a cap | a cap | | hat | a cap
a hall with green walls instead of a hall with blue walls | a hall + green walls | | hall + blue walls | a hall with green walls
without stripes or dots | | | stripes + dots |
neither red nor blue | | | red + blue |
no stripes, dots or checks | | | stripes + dots + checks |
without stripes and dots | | | stripes + dots |
without a belt and a hat | | | belt + hat |
no shoes and no hat | | | shoes + hat |
without sleeves and red | red | | sleeves | red
without sleeves, in red | in red | | sleeves | in red
no stripes, long sleeves | long sleeves | | stripes | long sleeves
without stripes in red | in red | | stripes | in red
no people in the background | | | people in the background |
in red with long sleeves, but without stripes | in red + long sleeves | | stripes | in red with long sleeves
a red dress with no sleeves and a hood | a red dress + a hood | | sleeves | a red dress and a hood
keep the dog but remove the leash | | dog | leash | keep the dog
don't change the colour, no stripes | | colour | stripes | keep the colour
the same style but less formal | | style | formal | the same style
no collar, please | | | collar |
"""


def readings(table: str) -> list[list[str]]:
    rows = [[cell.strip() for cell in line.split("|")] for line in table.strip().splitlines()]
    assert len({row[0] for row in rows}) == len(rows)
    return rows


def phrases(cell: str) -> tuple[str, ...]:
    return tuple(filter(None, cell.split(" + ")))


@pytest.mark.parametrize(("prompt", "desired", "preserve", "forbidden", "remaining"), readings(READINGS))
def test_prompts_are_sorted_into_roles(prompt: str, desired: str, preserve: str, forbidden: str, remaining: str) -> None:
    compiler = RuleCompiler()
    expected = Roles(None, phrases(desired), phrases(preserve), phrases(forbidden))
    assert compiler.roles(prompt) == expected
    assert compiler.desired_text(prompt) == remaining
    assert compiler.compile([ComposerInput(prompt=prompt.upper())])[0].forbidden == tuple(p.upper() for p in expected.forbidden)


@pytest.mark.parametrize(
    ("prompt", "desired", "forbidden", "remaining"),
    [
        ("Without  sleeves", ("Without  sleeves",), (), "Without  sleeves"),
        ("in red without sleeves", ("in red", "without sleeves"), (), "in red without sleeves"),
        ("with no sleeves please", ("with no sleeves",), (), "with no sleeves please"),
        ("without sleeves or stripes", ("without sleeves",), ("stripes",), "without sleeves"),
        ("without stripes and without sleeves", ("without sleeves",), ("stripes",), "without sleeves"),
        ("no sleeves", (), ("sleeves",), ""),
        ("striped", ("striped",), (), "striped"),
    ],
)
def test_words_of_a_vocabulary_are_not_negations(
    prompt: str, desired: tuple[str, ...], forbidden: tuple[str, ...], remaining: str
) -> None:
    compiler = RuleCompiler(fixed_phrases=frozenset({"without sleeves", "with no sleeves", "striped"}))
    assert compiler.roles(prompt) == Roles(None, desired, (), forbidden)
    assert compiler.desired_text(prompt) == remaining


WISHES = st.sampled_from(["in red", "with long sleeves", "longer", "for men", "as a dress", "striped"])
UNWANTED = st.sampled_from(["stripes", "belt", "hood", "red buttons", "zips", "glitter"])
REJECTING = st.sampled_from(
    ["without {}", "no {}", "but not {}", "remove the {}", "I don't want {}", "minus the {}", "less {}"]
)


@given(WISHES, UNWANTED, REJECTING)
def test_what_remains_of_a_prompt_is_its_wish(wish: str, unwanted: str, rejecting: str) -> None:
    compiler = RuleCompiler()
    rejection = rejecting.format(unwanted)
    for prompt in (f"{wish}, {rejection}", f"{rejection}, {wish}", f"{wish} and {rejection}"):
        assert compiler.roles(prompt).forbidden == (unwanted,)
        assert compiler.desired_text(prompt) == wish


SPEECH = "no not without with instead of the same keep but and or , a red stripes sleeves except any less for -free ’s"
SPOKEN = st.lists(st.sampled_from(SPEECH.split()))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.one_of(st.text(max_size=40), SPOKEN.map(" ".join)))
@example("not, without")
@example("no" * 50)
def test_any_text_can_be_sorted(prompt: str) -> None:
    compiler = RuleCompiler(fixed_phrases=frozenset({"without sleeves", ""}))
    found = compiler.roles(prompt)
    assert all(phrase == phrase.strip() and phrase for phrase in (*found.desired, *found.preserve, *found.forbidden))
    remaining = compiler.desired_text(prompt)
    assert remaining == prompt.strip() or found.forbidden
    assert not any("\ue000" <= letter <= "\ue002" for letter in remaining) or any(
        "\ue000" <= letter <= "\ue002" for letter in prompt
    )


@pytest.mark.parametrize(
    "module", [tokens, vocabulary, lexicon, editing, role_compiler, rewriters, fields, files, tagger, gallery, client]
)
def test_examples_in_docstrings_run(module: object) -> None:
    assert doctest.testmod(module).failed == 0  # type: ignore[arg-type]
