"""The acceptance rule for a repository that has none of its own: any metric, either direction."""


def test_metric_improves(experiment):
    assert experiment.training_seconds <= experiment.budget_seconds
    assert experiment.peak_memory_mb <= experiment.memory_limit_mb
    assert experiment.gain > experiment.margin
