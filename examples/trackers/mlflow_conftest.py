"""Every experiment as a run of MLflow, in an MLflow experiment called after the campaign.

Copy this into your conftest.py and `pip install mlflow` (or `mlflow-skinny`, which logs and has no pages to look at).
Runs go where MLFLOW_TRACKING_URI says, else into the file mlflow.db: `mlflow ui --backend-store-uri sqlite:///mlflow.db`.
"""

import math
import os
import re

import mlflow


def pytest_autoresearch_record(campaign, experiment):
    here = f"sqlite:///{campaign.settings.root / 'mlflow.db'}"
    mlflow.set_tracking_uri(os.environ.get("MLFLOW_TRACKING_URI", here))
    mlflow.set_experiment(f"autoresearch-{experiment.tag}")
    verdict, proposal = experiment.verdict, experiment.proposal
    numbers = {
        re.sub(r"[^\w./ -]", "_", experiment.metric_name): experiment.metric,  # MLflow has no `recall@1`
        "best": experiment.best,
        "gain": experiment.gain,
        "training_seconds": experiment.training_seconds,
        "peak_memory_mb": experiment.peak_memory_mb,
        "cost_usd": experiment.usage.cost_usd or 0.0,
    }
    with mlflow.start_run(run_name=f"{experiment.number:04d}", description=proposal.description):
        mlflow.log_params(experiment.constants)
        # A crash has no metric, and a baseline nothing to beat.
        mlflow.log_metrics({name: value for name, value in numbers.items() if math.isfinite(value)})
        mlflow.set_tags(
            {
                "status": str(verdict.status),
                "reason": verdict.reason,
                "number": experiment.number,
                "commit": experiment.commit,
                "proposer": proposal.proposer,
                "hypothesis": proposal.hypothesis,
            }
        )
