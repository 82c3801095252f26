"""The wardrobe: a built-in data set of drawn clothes with captions and composed queries, and a small CLIP trained on them.

The model knows drawn clothes and nothing else.

Examples
--------
>>> import mmretrieve as mm
>>> retriever = mm.Retriever.open(mm.wardrobe.gallery_folder())  # draws and indexes the 2,000 images on first use
>>> len(retriever.gallery)
2000
"""

from mmretrieve.options import cache_folder
from mmretrieve.wardrobe.dataset import drawings, queries
from mmretrieve.wardrobe.gallery import fields_of, gallery_folder, pictures_folder

__all__ = ["cache_folder", "drawings", "fields_of", "gallery_folder", "pictures_folder", "queries"]
