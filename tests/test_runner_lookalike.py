"""The line that was meant as the metric is quoted, with what to print instead."""

from __future__ import annotations

import pytest

from pytest_autoresearch.runners.lookalike import QUOTED, hint


@pytest.mark.parametrize(
    ("name", "line", "instead"),
    [
        ("val_bpb", "val_bpb: 0.99 (best)", "val_bpb: 0.99"),
        ("val_bpb", "val_bpb: tensor(0.9912, device='cuda:0')", "val_bpb: 0.9912"),
        ("val_bpb", "val_bpb: tensor([0.9912])", "val_bpb: 0.9912"),
        ("acc", "acc: 91.2%", "acc: 91.2"),
        ("cost", "cost: $1,234.56", "cost: 1234.56"),
        ("val_bpb", "INFO:root:val_bpb: 0.99", "val_bpb: 0.99"),
        ("val_bpb", "2026-01-01 12:00:00 - val_bpb: 0.99", "val_bpb: 0.99"),
        ("val_bpb", "[rank0]: val_bpb: 0.99", "val_bpb: 0.99"),
        ("val_bpb", "val_bpb = 0.99", "val_bpb: 0.99"),
        ("val_bpb", "val_bpb 9.9e-1", "val_bpb: 9.9e-1"),
        ("val_bpb", "Val BPB: 0.99", "val_bpb: 0.99"),
        ("val_bpb", "{'val_bpb': np.float64(0.99), 'depth': 8}", "val_bpb: 0.99"),
        ("val_bpb", "| val_bpb | 0.99 |", "val_bpb: 0.99"),
        ("val_bpb", "100%|████| 9/9 [00:01<00:00, 5.05it/s]val_bpb: 1.0", "val_bpb: 1.0"),
        ("total_µs", "done: total_µs=15µs", "total_µs: 15"),
        ("recall@1", "recall@1: 91/100", "recall@1: 91"),
        ("top-1", "Top 1: 0.5 top-5: 0.9", "top-1: 0.5"),
    ],
)
def test_a_line_that_looks_like_the_metric_is_quoted_with_what_to_print(name: str, line: str, instead: str) -> None:
    said = hint(name, ["step 1", line, "depth: 8", "the end"])
    assert f"looks like the metric, but is more than its name and a number: `{line}`" in said
    assert said.endswith(f"print `{instead}` on a line of its own")


def test_a_line_before_the_last_rule_is_told_to_come_after_it() -> None:
    assert hint("val_bpb", ["val_bpb: 0.99", "---", "depth: 8"]) == (
        "the line `val_bpb: 0.99` comes before the last line `---`: print it after that line"
    )


@pytest.mark.parametrize(
    "line", ["train_loss: 3", "the loss is small", "loss: none", "losses: 3", "val/loss: 3", "", "loss@1: 3", "loss:"]
)
def test_other_lines_are_not_taken_for_it(line: str) -> None:
    assert hint("loss", [line]) == ""


def test_a_long_line_is_quoted_around_the_metric_and_takes_no_time() -> None:
    said = hint("val_bpb", [" " * 100_000, "x" * 5000 + " val_bpb: 0.99 " + "y" * 5000, "val_bpb " * 10_000])
    assert "xx val_bpb: 0.99 yy" in said
    assert len(said) < 3 * QUOTED
