"""A gallery of your own photos, and a search in it: `python examples/own_photos.py [FOLDER]`."""

import sys
import tempfile
from pathlib import Path

import mmretrieve as mm

# without a folder: sixty drawings of the built-in wardrobe, whose small model they need
photos = Path(sys.argv[1]) if len(sys.argv) > 1 else sorted(mm.wardrobe.pictures_folder().glob("*-0[0-4][0-9]?.png"))[:60]
encoder = mm.load_encoder("wardrobe" if len(sys.argv) < 2 else "ViT-B-32-quickgelu/openai")

with tempfile.TemporaryDirectory() as folder:
    gallery = mm.Gallery.create(f"{folder}/my.gallery", encoder=encoder)
    print(gallery.add(photos))
    retriever = mm.Retriever(gallery, encoder)
    ranking = retriever.search(reference_id=gallery.ids[0], prompt="in red", exclude_reference=True, k=3)
    print(ranking)
    ranking.save(f"{folder}/hits.html")  # or `ranking.show()`; in a notebook, `ranking` alone

# prints:
# 60 added, 0 skipped, 0 failed
#    1  1.2792  black-checked-trousers-0159.png  (image +0.385  text +0.017  composed +0.825  prompt +0.053)
#    2  1.2329  black-checked-trousers-0284.png  (image +0.384  text +0.008  composed +0.792  prompt +0.049)
#    3  1.2142  black-checked-trousers-0228.png  (image +0.339  text +0.046  composed +0.779  prompt +0.051)
