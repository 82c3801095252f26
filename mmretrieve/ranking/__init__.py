"""The result of a search, and its forms: values, tables, files, pages and runs. Packages of data frames are imported where they are used."""

from mmretrieve.ranking.hits import Hit, Ranking

__all__ = ["Hit", "Ranking"]
