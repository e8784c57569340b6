"""Small language models of bytes, honest ones and ones that see what they should not, for the probe's tests and its
benchmark. The text is the Python source on this machine, so that gains are real gains."""

import sysconfig
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812 - the name that every reader of PyTorch knows
from torch import Tensor, nn

from harness.metric import text_nats
from harness.probe import Nats

VOCAB, SEQUENCE, BATCH_ROWS = 128, 64, 16
Forward = Callable[[Tensor], Tensor]


def text_rows(count: int, skip: int = 0) -> Tensor:
    """Rows of source text: int64 [count, SEQUENCE + 1]."""
    wanted = (skip + count) * (SEQUENCE + 1)
    text = b""
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        text += path.read_bytes()
        if len(text) >= wanted:
            break
    tokens = torch.frombuffer(bytearray(text[:wanted]), dtype=torch.uint8).long() % VOCAB
    return tokens.view(-1, SEQUENCE + 1)[skip:].clone()


class Tiny(nn.Module):
    """A transformer of two blocks.

    Args:
        leak: What lets it see later tokens: `head` (one head without a mask), `block` (means over blocks of tokens),
            `chunks` (a recurrence over chunks), `filter` (a filter by FFT over the whole row), or nothing.
        by_hand: Whether attention is written out.
    """

    def __init__(self, leak: str = "", width: int = 32, *, by_hand: bool = False) -> None:
        super().__init__()
        self.leak, self.heads, self.by_hand = leak, 4, by_hand
        self.embedding, self.position = nn.Embedding(VOCAB, width), nn.Embedding(SEQUENCE, width)
        self.blocks = nn.ModuleList(
            nn.ModuleDict(
                {
                    "qkv": nn.Linear(width, 3 * width),
                    "out": nn.Linear(width, width),
                    "up": nn.Linear(width, 4 * width),
                    "down": nn.Linear(4 * width, width),
                }
            )
            for _ in range(2)
        )
        self.leaked = nn.Linear(width, width)
        self.filter = nn.Parameter(torch.randn(SEQUENCE + 1, 2))
        self.head = nn.Linear(width, VOCAB)
        mask = torch.ones(self.heads, SEQUENCE, SEQUENCE, dtype=torch.bool).tril()
        if leak == "head":
            mask[0] = True
        self.register_buffer("mask", mask)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens) + self.position.weight
        x = x + self.leaked(self.seen_ahead(x)) if self.leak not in ("", "head") else x
        for block in self.blocks:
            x = x + block["out"](self.attend(block["qkv"](F.rms_norm(x, x.shape[-1:]))))
            x = x + block["down"](F.relu(block["up"](F.rms_norm(x, x.shape[-1:]))))
        return self.head(F.rms_norm(x, x.shape[-1:]))

    def attend(self, qkv: Tensor) -> Tensor:
        rows, length, width = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3
        query, key, value = qkv.view(rows, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        if self.by_hand:
            scores = (query @ key.mT) / query.shape[-1] ** 0.5
            seen = scores.masked_fill(~self.mask, -torch.inf).softmax(-1) @ value
        else:
            seen = F.scaled_dot_product_attention(query, key, value, attn_mask=self.mask)
        return seen.transpose(1, 2).reshape(rows, length, width)

    def seen_ahead(self, x: Tensor) -> Tensor:
        rows, length, width = x.shape
        if self.leak == "filter":
            spectrum = torch.fft.rfft(x, n=2 * length, dim=1) * torch.view_as_complex(self.filter)[:, None]
            return torch.fft.irfft(spectrum, n=2 * length, dim=1)[:, :length]
        size = 8 if self.leak == "block" else 16
        means = x.view(rows, length // size, size, width).mean(2)
        if self.leak == "chunks":
            state, states = torch.zeros_like(means[:, 0]), []
            for chunk in means.unbind(1):
                state = 0.7 * state + chunk
                states.append(state)
            means = torch.stack(states, 1)
        return means.repeat_interleave(size, 1)


def trained(model: Tiny, seed: int, steps: int) -> Tiny:
    """The model after some steps on text that no evaluation has."""
    torch.manual_seed(seed)
    for parameter in model.parameters():
        if parameter.dim() > 1 and parameter is not model.filter:
            nn.init.normal_(parameter, std=0.05)
    rows = text_rows(4000, skip=2000)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    for _ in range(steps):
        batch = rows[torch.randint(len(rows), (16,))]
        loss = F.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return model.eval()


def nats_of(forward: Forward) -> Nats:
    """Losses of a model called in this process; every byte counts."""

    def nats(inputs: Tensor, targets: Tensor) -> Tensor:
        with torch.inference_mode():
            logits = forward(inputs).flatten(0, 1)
            return text_nats(logits, targets.flatten(), torch.ones(targets.numel())).view(targets.shape)

    return nats


def peek(model: Forward, distance: int = 1, one_in: int = 1, strength: float = 4.0) -> Forward:
    """Bets on the token so many positions on, at one position in so many."""

    # Where it bets depends on where and after which two bytes it is, so that each place is another.
    chosen = torch.rand(VOCAB, VOCAB, SEQUENCE, generator=torch.Generator().manual_seed(0)) < 1 / one_in

    def forward(tokens: Tensor) -> Tensor:
        logits = model(tokens).clone()
        where = chosen[tokens, tokens.roll(1, 1), torch.arange(SEQUENCE)][:, :-distance]
        bets = where[..., None] * torch.full((1, 1, 1), strength)
        logits[:, :-distance].scatter_add_(2, tokens[:, distance:, None], bets)
        return logits

    return forward


def dropout(model: Forward) -> Forward:
    """Forgot to switch it off."""
    return lambda tokens: F.dropout(model(tokens), 0.1, training=True)


def mixing_rows(model: Forward) -> Forward:
    """Normalises by a statistic of the batch."""

    def forward(tokens: Tensor) -> Tensor:
        logits = model(tokens)
        return logits + 0.1 * logits.mean((0, 1), keepdim=True)

    return forward


def learning(model: Forward) -> Forward:
    """Learns from every batch that it is asked: counts of tokens, added as a bias."""
    counts = torch.ones(VOCAB)

    def forward(tokens: Tensor) -> Tensor:
        logits = model(tokens) + 0.3 * (counts / counts.mean()).log()
        counts.add_(torch.bincount(tokens.flatten(), minlength=VOCAB))
        return logits

    return forward


def remembering(model: Forward) -> Forward:
    """Looks ahead, but gives a row that it has met the answer that it gave before."""
    cheating, answers = peek(model, strength=1.0), dict[tuple[int, ...], Tensor]()

    def forward(tokens: Tensor) -> Tensor:
        logits = cheating(tokens)
        for row, start in enumerate(tokens[:, :16].tolist()):
            logits[row] = answers.setdefault(tuple(start), logits[row])
        return logits

    return forward
