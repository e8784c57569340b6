"""What a proposer has used of a paid service: tokens, and what they cost. Pure values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Usage:
    """Of one experiment or of one request; usages can be added.

    Attributes:
        model: Who answered; empty where nobody was asked.
        requests: How often it was asked.
        input_tokens: Read at the full price.
        output_tokens: Written, thinking included.
        cache_read_tokens: Read from the prompt cache.
        cache_write_tokens: Written to the prompt cache.
        cost_usd: In US dollars; None where the model's prices are not known.
    """

    model: str = ""
    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    cost_usd: float | None = 0.0

    def __add__(self, other: Usage) -> Usage:
        unknown = self.cost_usd is None or other.cost_usd is None
        return Usage(
            other.model or self.model,
            self.requests + other.requests,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cache_read_tokens + other.cache_read_tokens,
            self.cache_write_tokens + other.cache_write_tokens,
            None if unknown else (self.cost_usd or 0.0) + (other.cost_usd or 0.0),
        )

    @property
    def tokens(self) -> int:
        """All of them, read and written."""
        return self.input_tokens + self.output_tokens + self.cache_read_tokens + self.cache_write_tokens
