"""Checks of the contracts that encoders, composers, rules and judges of other packages keep.

Each check returns None, or raises an AssertionError whose one line names the clause that is violated. They need no test runner.

Examples
--------
>>> import mmretrieve as mm
>>> mm.testing.check_rule("product")
>>> mm.testing.check_encoder(mm.load_encoder("wardrobe"))
"""

from mmretrieve.testing.composers import check_composer
from mmretrieve.testing.encoders import check_encoder
from mmretrieve.testing.judges import check_judge
from mmretrieve.testing.rules import check_rule

__all__ = ["check_composer", "check_encoder", "check_judge", "check_rule"]
