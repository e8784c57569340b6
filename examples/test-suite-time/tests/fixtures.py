"""What the tests share. The file that experiments edit."""

import pytest
from shop.catalogue import Catalogue

GOODS = [(f"screw {number}", 5 + number % 90, 100) for number in range(5000)]


@pytest.fixture
def catalogue():
    """A catalogue of five thousand screws; each test has one of its own and may sell from it."""
    made = Catalogue(":memory:")
    for name, cents, left in GOODS:
        made.add(name, cents, left)
    yield made
    made.close()
