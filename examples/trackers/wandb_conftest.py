"""A campaign as one run of Weights & Biases: a step for each experiment.

Copy this into your conftest.py and `pip install wandb`. It writes into the folder wandb and sends nothing; `wandb sync`
sends it later, and with WANDB_MODE=online it is sent as it comes.
"""

import math
import os

import wandb


def pytest_autoresearch_record(campaign, experiment):
    run = wandb.run or wandb.init(
        project=os.environ.get("WANDB_PROJECT", "autoresearch"),
        id=f"autoresearch-{experiment.tag}",  # a session that goes on with the campaign goes on with the run
        resume="allow",
        mode=os.environ.get("WANDB_MODE", "offline"),
        dir=campaign.settings.root,
        config={"metric": experiment.metric_name, "direction": str(experiment.direction)},
    )
    numbers = {
        experiment.metric_name: experiment.metric,
        "best": experiment.best,
        "gain": experiment.gain,
        "training_seconds": experiment.training_seconds,
        "peak_memory_mb": experiment.peak_memory_mb,
        "cost_usd": experiment.usage.cost_usd or 0.0,
    }
    words = {
        "status": str(experiment.verdict.status),
        "reason": experiment.verdict.reason,
        "description": experiment.proposal.description,
        "commit": experiment.commit,
    }
    # A crash has no metric, and a baseline nothing to beat.
    finite = {name: value for name, value in numbers.items() if math.isfinite(value)}
    run.log({**finite, **words}, step=experiment.number)


def pytest_unconfigure():
    if wandb.run is not None:
        wandb.finish()
