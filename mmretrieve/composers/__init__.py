"""Composers: turn a reference image and a prompt into named terms."""

from mmretrieve.composers.factory import Parts, make_composer, parts_from
from mmretrieve.registry import register_composer

__all__ = ["Parts", "make_composer", "parts_from", "register_composer"]
