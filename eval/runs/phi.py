"""A phi for an encoder that comes without one, trained on what a tagger may say: enough to compare methods with."""

from __future__ import annotations

import hashlib
from itertools import product
from pathlib import Path
from random import Random

from mmretrieve import Vocabulary
from mmretrieve.encoders.openclip import OpenClipEncoder
from mmretrieve.inversion.recipe import PhiRecipe
from mmretrieve.inversion.train import train_phi
from mmretrieve.language.vocabulary import default_vocabulary

RECIPE = PhiRecipe(steps=1500, batch=128, learning_rate=3e-4, validate_every=250)
SENTENCES = 40_000


def sentences(vocabulary: Vocabulary, *, seed: int = 0) -> list[str]:
    """Up to SENTENCES different things the vocabulary can say, in random order."""
    random = Random(seed)
    whole = [
        vocabulary.say(vocabulary.consistent(dict(zip((group.name for group in vocabulary.groups), words, strict=True))))
        for words in product(*(group.words for group in vocabulary.groups))
    ]
    return random.sample(sorted(set(whole)), min(SENTENCES, len(set(whole))))


def phi_for(encoder: OpenClipEncoder, vocabulary: Vocabulary | None, folder: Path) -> Path:
    """The phi of that encoder, these words and RECIPE in `folder`, trained at the first call (a few minutes on two cores)."""
    said = sentences(vocabulary or default_vocabulary(encoder))
    settled = hashlib.blake2b(repr((encoder.identity.weights, RECIPE, said)).encode(), digest_size=8).hexdigest()
    folder.mkdir(parents=True, exist_ok=True)
    train_phi(said, encoder, folder / f"phi-{settled}.safetensors", RECIPE)
    return folder / f"phi-{settled}.safetensors"
