"""A method of one's own, by name in Python, shell, API and evaluation: `python examples/write_a_composer.py`.

This one takes the prompt as it is and as a description of a photo, and lets both count beside the image.
"""

from collections.abc import Sequence

import numpy as np

import mmretrieve as mm
from mmretrieve.composer_input import ComposerInput
from mmretrieve.composers import ComposerContext
from mmretrieve.testing import check_composer


class TwoWordings:
    """The terms image, prompt and photo."""

    def __init__(self, context: ComposerContext) -> None:
        self.encoder = context.encoder

    def compose(self, inputs: Sequence[ComposerInput]) -> list[mm.Composition]:
        prompts = [query.required_prompt() for query in inputs]
        rows, photos = (
            self.encoder.encode_texts([form.format(prompt) for prompt in prompts]) for form in ("{}", "a photo of {}")
        )
        return [
            mm.Composition(
                ("image", "prompt", "photo"),
                np.stack([query.required_reference(), row, photo]),
                (1.0, 0.5, 0.5),
                {"prompt": prompt, "photo": f"a photo of {prompt}"},
            )
            for query, prompt, row, photo in zip(inputs, prompts, rows, photos, strict=True)
        ]


mm.register_composer("two-wordings", TwoWordings, keeps_weights=True, supports_pdv=False)
check_composer("two-wordings")  # the contract: batches, shapes, units, words, …

retriever = mm.Retriever.open(mm.wardrobe.gallery_folder())
ranking = retriever.search(reference_id="red-checked-dress-1815.png", prompt="in blue", composer="two-wordings", k=3)
print(ranking)

# prints:
#    1  1.1093  red-checked-dress-1815.png  (image +1.000  prompt +0.057  photo +0.052)
#    2  1.0955  red-checked-dress-0871.png  (image +0.983  prompt +0.058  photo +0.054)
#    3  1.0938  red-checked-dress-1405.png  (image +0.979  prompt +0.061  photo +0.054)
