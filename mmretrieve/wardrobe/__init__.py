"""The wardrobe: a built-in data set of drawn clothes with captions and composed queries, and a small CLIP trained on them.

The model knows drawn clothes and nothing else.

    folder = mmretrieve.wardrobe.gallery_folder()   # draws and indexes the 2,000 images on first use
    retriever = mmretrieve.Retriever.open(folder)
"""

from mmretrieve.wardrobe.dataset import drawings, queries
from mmretrieve.wardrobe.gallery import cache_folder, draw_images, fields_of, gallery_folder, pictures_folder

__all__ = ["cache_folder", "draw_images", "drawings", "fields_of", "gallery_folder", "pictures_folder", "queries"]
