import pytest


@pytest.mark.parametrize("number", [0, 1, 89, 90, 4999])
def test_every_screw_has_its_price(catalogue, number):
    assert catalogue.price(f"screw {number}") == 5 + number % 90


def test_what_is_sold_is_gone(catalogue):
    catalogue.sell("screw 7", 3)
    assert catalogue.left("screw 7") == 97


def test_another_test_has_sold_nothing(catalogue):
    assert catalogue.left("screw 7") == 100


def test_nothing_is_sold_that_is_not_there(catalogue):
    with pytest.raises(ValueError, match="not enough"):
        catalogue.sell("screw 7", 101)


def test_the_cheapest(catalogue):
    assert catalogue.cheapest() == "screw 0"


def test_an_unknown_screw(catalogue):
    with pytest.raises(KeyError):
        catalogue.price("screw 5000")
