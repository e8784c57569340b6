"""Every test still passes, and the suite is faster: a suite that tests less is faster, too."""

TESTS = 10


def test_suite_is_faster(experiment):
    assert experiment.passed == TESTS
    assert experiment.cpu_seconds < experiment.best - experiment.margin
