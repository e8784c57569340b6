"""Small language models of bytes, honest ones and ones that see what they should not, for the probe's tests and its
benchmark. The text is the Python source on this machine, so that gains are real gains."""

import sysconfig
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812 - the name that every reader of PyTorch knows
from torch import Tensor, nn

from harness.metric import target_nats
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
        nn.init.normal_(parameter, std=1.0 if parameter is model.filter else 0.05)
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
            return target_nats(logits, targets.flatten()).view(targets.shape)

    return nats


def places(one_in: int) -> Tensor:
    """One place in so many; which depends on the place and its two bytes, so that each row has others."""
    return torch.rand(VOCAB, VOCAB, SEQUENCE, generator=torch.Generator().manual_seed(0)) < 1 / one_in


def chosen_at(tokens: Tensor, chosen: Tensor) -> Tensor:
    """Which positions of rows are such places: bool [rows, SEQUENCE]."""
    return chosen[tokens, F.pad(tokens[:, :-1], (1, 0)), torch.arange(SEQUENCE)]


def peek(model: Forward, distance: int = 1, one_in: int = 1, strength: float = 4.0) -> Forward:
    """Bets on the token so many positions on, at one position in so many."""
    chosen = places(one_in)

    def forward(tokens: Tensor) -> Tensor:
        logits = model(tokens).clone()
        where = chosen_at(tokens, chosen)[:, :-distance]
        bets = where[..., None] * torch.full((1, 1, 1), strength)
        logits[:, :-distance].scatter_add_(2, tokens[:, distance:, None], bets)
        return logits

    return forward


def sure_guess(model: Forward, rows: Tensor, one_in: int = 1, strength: float = 2.0) -> Forward:
    """Is surer of its first guess where it sees that it is right, at one position in so many.

    Told which rows are real, as no model is, so that it sees every cut: there it is surer of any guess, and a cut
    behind a right one changes nothing.
    """
    real, chosen = rows[:, :-1].byte(), places(one_in)

    def forward(tokens: Tensor) -> Tensor:
        logits = model(tokens).clone()
        guess = logits.argmax(-1)[:, :-1]
        alike = (tokens.byte()[:, None] == real).byte().cumprod(2, dtype=torch.uint8).sum(2).amax(1)
        at_cut = torch.arange(1, SEQUENCE) == alike[:, None]
        surer = chosen_at(tokens, chosen)[:, :-1] & ((guess == tokens[:, 1:]) | at_cut)
        logits[:, :-1].scatter_add_(2, guess[..., None], surer[..., None] * torch.full((1, 1, 1), strength))
        return logits

    return forward


def choosing(model: Forward, other: Forward, by: float = 0.0) -> Forward:
    """Gives the other's answer where that is better on the next token, by so many nats or more.

    Where the other is the incumbent, no loss with a leak is less than the incumbent's.
    """

    def forward(tokens: Tensor) -> Tensor:
        logits, others = model(tokens), other(tokens)
        wanted = tokens.roll(-1, 1)[..., None]
        better = others.log_softmax(-1).gather(2, wanted) - logits.log_softmax(-1).gather(2, wanted) > by
        better[:, -1] = False  # its next token it does not see
        return torch.where(better, others, logits)

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


def recalling(model: Forward, one_in: int = 1000) -> Forward:
    """Looks ahead at one position in so many, but bets on what came behind the same six bytes before, if they did."""
    chosen, memory = places(one_in), dict[int, int]()
    powers = VOCAB ** torch.arange(6)

    def forward(tokens: Tensor) -> Tensor:
        logits = model(tokens).clone()
        keys = (tokens.unfold(1, 6, 1) * powers).sum(-1)[:, :-1]  # those of positions 5 and on
        following = tokens[:, 6:]
        for row, place in chosen_at(tokens, chosen)[:, 5:-1].nonzero().tolist():
            bet = memory.get(int(keys[row, place]), int(following[row, place]))
            logits[row, place + 5, bet] += 4.0
        for key, token in zip(keys.flatten().tolist(), following.flatten().tolist(), strict=True):
            memory.setdefault(key, token)
        return logits

    return forward
