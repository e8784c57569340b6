"""A campaign as curves of TensorBoard over the experiments, with what was tried as text.

Copy this into your conftest.py and `pip install tensorboardX tensorboard`; `tensorboard --logdir
experiments/runs/tensorboard` shows it. `torch.utils.tensorboard` has the same SummaryWriter, and loads PyTorch for it.
"""

import math

from tensorboardX import SummaryWriter

writers = {}


def pytest_autoresearch_record(campaign, experiment):
    folder = campaign.settings.experiments_folder / "runs" / "tensorboard" / experiment.tag
    if experiment.tag not in writers:
        writers[experiment.tag] = SummaryWriter(str(folder))
    writer, number = writers[experiment.tag], experiment.number
    numbers = {
        experiment.metric_name: experiment.metric,
        "best": experiment.best,
        "gain": experiment.gain,
        "training_seconds": experiment.training_seconds,
        "peak_memory_mb": experiment.peak_memory_mb,
    }
    for name, value in numbers.items():
        if math.isfinite(value):  # a crash has no metric, and a baseline nothing to beat
            writer.add_scalar(name, value, number)
    writer.add_text(str(experiment.verdict.status), f"{number:04d} {experiment.proposal.description}", number)
    writer.flush()  # it can be looked at while the night goes on


def pytest_unconfigure():
    for writer in writers.values():
        writer.close()
