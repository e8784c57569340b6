"""The acceptance rule: an experiment is kept if this test passes. Add asserts to demand more."""


def test_val_bpb_improves(experiment):
    assert experiment.training_seconds <= experiment.budget_seconds
    assert experiment.peak_memory_mb <= experiment.memory_limit_mb
    assert experiment.val_bpb < experiment.best - experiment.margin
