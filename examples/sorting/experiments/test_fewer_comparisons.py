"""Fewer comparisons, and no slower than a tenth of a second for all lists: a count can be bought with other work."""


def test_it_compares_less(experiment):
    assert experiment.milliseconds < 100
    assert experiment.comparisons < experiment.best - experiment.margin
