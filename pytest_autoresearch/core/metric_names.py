"""What the name of a metric says: which way it improves, and whether it only measures time or memory. Pure.

A name is read as words: `valBpb`, `val_bpb` and `val/bpb` are the same. The last known word decides, because it is the
noun: `accuracy_loss` is a loss. What follows `per`, `at`, `to` or `@` only says where it was measured.
"""

from __future__ import annotations

import re

from pytest_autoresearch.core.experiment import Direction


def vocabulary(text: str) -> frozenset[str]:
    """The words of a text, as a set."""
    return frozenset(text.split())


_TIME = vocabulary(
    "s sec secs second seconds ms msec millis milliseconds us μs usec microseconds ns nanoseconds "
    "minute minutes hour hours"
)
_RESOURCE = _TIME | vocabulary(
    "time times latency latencies duration elapsed runtime walltime wallclock wall memory mem vram ram rss "
    "bytes byte kb mb gb kib mib gib cost costs usd price"
)
_DOWN = vocabulary(
    "loss losses bpb bpc bpt bits nll perplexity ppl error errors err errs wer cer mer eer fid mae mse rmse mape "
    "smape rmsle brier ece divergence kl distance dist chamfer regret miss misses failures fails violations "
    "warnings mistakes defects bugs fpr fnr overfit ttft tpot complexity loc "
    "p50 p90 p95 p99"
)
_UP = vocabulary(
    "accuracy acc precision recall score scores f1 f2 auc auroc roc auprc map ap ndcg mrr iou miou dice jaccard psnr "
    "ssim r2 throughput mfu hfu bleu rouge meteor chrf reward rewards return returns speedup speedups sharpe sortino "
    "calmar elo win wins winrate success successes pass passed passes passing coverage profit pnl revenue fps qps rps "
    "tps iops flops gflops tflops bandwidth gbps hit hits solved correct quality efficiency similarity correlation "
    "pearson spearman kendall likelihood logprob mcc kappa utilization utilisation tpr tnr sensitivity specificity em "
    "gain improvement reduction saved savings uplift"
)
_COUNTED = vocabulary(
    "tok toks token tokens it its iter iters iteration iterations step steps sample samples example examples image "
    "images img imgs row rows record records frame frames query queries req reqs request requests op ops file files "
    "word words char chars item items batch batches game games episode episodes byte bytes kb mb gb kib mib gib"
)
_WHERE = vocabulary("per at to of until under vs on in for @ /")
_TURNED = vocabulary("neg negative negated minus inverse inv inverted")
_VAGUE = vocabulary("score scores quality")  # some scores are better when they are lower

_WORD = re.compile(r"[^\W\d_]+\d*|\d+|[@/]")
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def words(name: str) -> list[str]:
    """The words of a name, in lower case; `@` and `/` are words of their own."""
    return _WORD.findall(_HUMP.sub("_", name).casefold())


def direction_of(name: str) -> Direction | None:
    """Which way a metric of this name improves; None if the name does not tell."""
    said = words(name)
    better = _direction(said)
    turned = bool(_TURNED & set(said)) or name.lstrip().startswith("-")
    if better is None or not turned:
        return better
    return Direction.MAXIMIZE if better is Direction.MINIMIZE else Direction.MINIMIZE


def is_vague(name: str) -> bool:
    """Whether only a word such as `score` tells the direction, which some use for numbers that should fall."""
    known = set(words(name)) & (_DOWN | _UP | _RESOURCE)
    return bool(known) and known <= _VAGUE


def is_resource(name: str) -> bool:
    """Whether the name speaks of nothing but time, memory or money, which most logs have beside their metric."""
    said = words(name)
    return direction_of(name) is Direction.MINIMIZE and not (_DOWN | _UP) & set(said)


def _direction(said: list[str]) -> Direction | None:
    where = next((n for n, word in enumerate(said) if n and word in _WHERE), len(said))
    head, rest = said[:where], said[where + 1 :]
    if _is_rate(head, said[where] if rest else "", rest):
        return Direction.MAXIMIZE
    known = [word for word in head if word in _DOWN | _UP | _RESOURCE]
    # val/loss: a slash may also part a group from its metric
    if not known and where < len(said) and said[where] == "/":
        return _direction(rest)
    if not known:
        return None
    return Direction.MAXIMIZE if known[-1] in _UP else Direction.MINIMIZE


def _is_rate(head: list[str], by: str, rest: list[str]) -> bool:
    """Whether something is counted for each unit of time: `tok/s`, `rows_per_second`, `tokens_sec`."""
    if by in ("per", "/") and rest[0] in _TIME:
        return not any(word in _DOWN or word in _RESOURCE - _COUNTED for word in head)
    return len(head) > 1 and head[-1] in ("s", "sec", "second") and head[-2] in _COUNTED
