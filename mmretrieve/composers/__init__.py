"""What makes terms: every way to compose a query, by name."""

from mmretrieve.composers.factory import Parts, make_composer, parts_from
from mmretrieve.registry import register_composer

__all__ = ["Parts", "make_composer", "parts_from", "register_composer"]
