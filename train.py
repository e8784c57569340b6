"""A small GPT, trained for a fixed number of seconds: the only file that an experiment edits.

The model is a decoder-only transformer. Tokens are embedded and normalised to x0. Each block first mixes the residual
stream with x0 by two learned weights, then adds attention and a ReLU² MLP, each with a normalised input (RMSNorm
without weights). Queries and keys are normalised and rotated (rotary positions). Every other block adds a second
embedding of the tokens to its values. Most blocks cut a row into windows, and a token sees its own; the last block sees
all. Logits are soft-capped.

NorMuon (momentum, the nearest orthogonal matrix, rows of equal length) trains the matrices inside blocks. AdamW trains
the embeddings, the unembedding and the mixing weights. Learning rates are constant at first and then decay linearly.
The schedules follow the elapsed share of the budget, so a faster program trains on more tokens and still completes its
schedule.

The harness provides rows of tokens, the seed and the budget. Its clock starts when it hands over the rows, so the model
is built, compiled and warmed up on made-up tokens before. Training ends early enough that `model.pt` is complete within
the budget; the scorer restores it with `load_model`. Dimensions in comments: B batch rows, T tokens in a row, D width,
H heads, S head size, V vocabulary.
"""

import harness

harness.tune_process()  # before torch is imported

import gc
import math
import os
import resource
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import psutil
import torch
import torch.nn.functional as F  # noqa: N812 - the name that every reader of PyTorch knows
from torch import Tensor, nn

# ---------------------------------------------------------------------------------------------------------------------
# Hyperparameters: plain numbers, so that a search can change each of them in place. They apply to every profile.

# Sizes for each profile: the model and the step fit the budget, and the tokens at once fit easily into memory.
#             depth  width  head size  tokens at once  tokens a step
SIZES = {
    "h200":     (9,   512,   128,       131_072,        262_144),
    "h100":     (9,   512,   128,       131_072,        262_144),
    "a100-80":  (9,   512,   128,       131_072,        262_144),
    "a100-40":  (9,   512,   128,        65_536,        131_072),
    "rtx-24":   (6,   384,   128,        32_768,         65_536),
    "rtx-12":   (6,   256,    64,        16_384,         32_768),
    "gtx-6":    (4,   256,    64,         8_192,         16_384),
    "cpu":      (2,    96,    48,         1_024,          1_024),
}  # fmt: skip

DEPTH_SCALE = 1.0  # times the blocks in the table; above 1 the result is rounded up, below 1 down
WIDTH_SCALE = 1.0  # times the heads in the table, rounded in the same way; the head size stays
BATCH_SCALE = 1.0  # times the rows of a step in the table, rounded in the same way to whole batches

# Model
WINDOW_PATTERN = "SSSL"  # windows of the blocks, repeated: S short, L the whole row; the last block is always L
WINDOW_DIVISOR = 4  # a short window is the sequence length divided by this
MLP_RATIO = 4.0  # width of the MLP, in widths of the model
VALUE_EVERY = 2  # one block in this many has a value embedding, counted from the last block
ROPE_BASE = 200_000.0  # rotary positions: the slowest pair turns by about one radian in this many tokens
LOGIT_CAP = 15.0  # logits stay between minus and plus this, in nats
INIT_SCALE = 0.68  # standard deviation of a matrix, in units of 1 / sqrt(width)
UNEMBEDDING_STD = 0.001  # standard deviation of the unembedding
SKIP_INIT = 0.05  # weight of x0 in each block, at the start

# Optimizers
EMBEDDING_LR = 1.0  # AdamW, token and value embeddings; times width_factor
UNEMBEDDING_LR = 0.0073  # AdamW; times width_factor
RESIDUAL_LR = 0.005  # AdamW, the weight of the residual stream in each block
SKIP_LR = 0.5  # AdamW, the weight of x0 in each block
ADAM_BETA1 = 0.8
ADAM_BETA2 = 0.95
VALUE_DECAY = 0.003  # weight decay of the value embeddings, per unit of rate
MATRIX_LR = 0.04  # Muon; the spectral norm of a square matrix's change
MATRIX_DECAY = 0.2  # weight decay of matrices, per unit of rate; decays to 0 linearly over the budget
MATRIX_BETA2 = 0.95  # Muon, running mean of the squared change of each row or column
MOMENTUM = 0.9  # Muon, after its ramp
MOMENTUM_START = 0.85  # Muon, at the first step
MOMENTUM_RAMP_FRACTION = 0.3  # share of the budget until MOMENTUM is reached

# Schedule of all learning rates, in shares of the budget
WARMUP_FRACTION = 0.0  # rise from 0 during this share at the start
WARMDOWN_FRACTION = 0.7  # fall to LR_FLOOR during this share at the end
LR_FLOOR = 0.05  # learning rate at the end, as a share of the full rate

# ---------------------------------------------------------------------------------------------------------------------
# Model


@dataclass(frozen=True)
class Shape:
    """The dimensions of a model; saved with its weights.

    Attributes:
        sequence_length: Tokens in a row.
        depth: Number of blocks.
        width: Width of the residual stream.
        head_size: Width of one attention head.
    """

    vocab_size: int
    sequence_length: int
    depth: int
    width: int
    head_size: int

    @property
    def windows(self) -> list[int]:
        """For each block, the tokens of a window: a token sees those before it in its window, and itself."""
        short = max(1, int(self.sequence_length / WINDOW_DIVISOR))
        pattern = [WINDOW_PATTERN[block % len(WINDOW_PATTERN)] for block in range(self.depth - 1)] + ["L"]
        return [self.sequence_length if letter == "L" else min(short, self.sequence_length) for letter in pattern]


def scaled(count: int, scale: float, what: str) -> int:
    """A scaled count, rounded away from the original count, so that only a scale of 1 leaves it unchanged."""
    result = round(count * scale, 6) if 0 < scale < math.inf else 0.0
    if result < 1:
        raise ValueError(f"a scale of {scale} leaves none of {count} {what}")
    return math.ceil(result) if scale > 1 else math.floor(result)


def sizes_of(profile: harness.Profile) -> tuple[Shape, int, int]:
    """The profile's model, the rows on the device at once, and the rows of a step (a multiple of the rows at once)."""
    depth, width, head_size, tokens_at_once, tokens_per_step = SIZES[profile.name]
    length = profile.sequence_length
    depth = scaled(depth, DEPTH_SCALE, "blocks")
    width = scaled(width // head_size, WIDTH_SCALE, "heads") * head_size
    rows = max(1, tokens_per_step // length)
    grain = 2 ** max(0, rows.bit_length() - 4)  # 8 to 15 grains a step, so that a batch can be halved twice
    step_rows = scaled(rows // grain, BATCH_SCALE, "parts of a step") * grain
    at_once = harness.device_batch(tokens_at_once // length, step_rows)
    return Shape(profile.vocab_size, length, depth, width, head_size), at_once, step_rows


def is_fast(device: torch.device | str) -> bool:
    """Whether to compute in bfloat16 with compiled kernels: on a CUDA device of the Ampere generation or later."""
    return torch.device(device).type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


def norm(x: Tensor) -> Tensor:
    """RMSNorm without weights, over the last dimension."""
    return F.rms_norm(x, (x.size(-1),))


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotate pairs (i, i + S/2) of a head by angles that grow with the position. x [B, T, H, S], angles [T, 1, S/2]."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cosine - second * sine, second * cosine + first * sine), dim=-1)


def attend(query: Tensor, key: Tensor, value: Tensor, window: int) -> Tensor:
    """Causal attention inside windows of this many tokens, the first at the start of a row: [B, T, H, S] for each
    tensor and the result. Windows are as cheap as rows of their length, unlike windows that slide."""
    batch, length, heads, size = query.shape
    window = min(window, length)
    behind = -length % window  # nothing sees what is added behind the row
    rows = [F.pad(x, (0, 0, 0, 0, 0, behind)) if behind else x for x in (query, key, value)]
    query, key, value = (x.view(-1, window, heads, size).transpose(1, 2) for x in rows)
    mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
    return mixed.transpose(1, 2).reshape(batch, length + behind, heads, size)[:, :length]


def project(x: Tensor, matrix: Tensor) -> Tensor:
    """Product with a matrix [outputs, inputs]; float32 weights are converted to the type of x."""
    return F.linear(x, matrix.to(x.dtype))


class Block(nn.Module):
    """Attention, then an MLP with ReLU²; each reads the normalised residual stream and adds its output to it."""

    def __init__(self, shape: Shape, has_value_embedding: bool) -> None:
        super().__init__()
        self.head_size = shape.head_size
        hidden = max(1, round(MLP_RATIO * shape.width))
        self.qkv = nn.Parameter(torch.empty(3, shape.width, shape.width))
        self.out = nn.Parameter(torch.empty(shape.width, shape.width))
        self.up = nn.Parameter(torch.empty(hidden, shape.width))
        self.down = nn.Parameter(torch.empty(shape.width, hidden))
        self.value_embedding = nn.Embedding(shape.vocab_size, shape.width) if has_value_embedding else None

    def forward(self, x: Tensor, tokens: Tensor, angles: tuple[Tensor, Tensor], window: int) -> Tensor:
        x = x + project(self.attention(norm(x), tokens, angles, window), self.out)
        return x + project(F.relu(project(norm(x), self.up)).square(), self.down)

    def attention(self, x: Tensor, tokens: Tensor, angles: tuple[Tensor, Tensor], window: int) -> Tensor:
        """The attention output before the projection `out`: [B, T, D]."""
        heads = (*x.shape[:2], -1, self.head_size)
        # Three products: the gradient of one would first be put together from three parts.
        query, key, value = (project(x, matrix).view(heads) for matrix in self.qkv)
        if self.value_embedding is not None:
            value = value + self.value_embedding(tokens).to(x.dtype).view(heads)
        return attend(rotate(norm(query), *angles), rotate(norm(key), *angles), value, window).flatten(2)

    def matrices(self) -> list[Tensor]:
        """The parameters that Muon trains: [3, rows, columns], then [rows, columns]."""
        return [self.qkv, self.out, self.up, self.down]


class GPT(nn.Module):
    """The model: from tokens int64 [B, T] to logits of the next token, float32 [B, T, V].

    Weights are float32. They are drawn on the CPU, so that they are the same for every device. On a fast device, the
    model computes in bfloat16. T is at most the shape's sequence length.
    """

    cosine: Tensor
    sine: Tensor

    def __init__(self, shape: Shape, device: torch.device | str) -> None:
        super().__init__()
        self.shape = shape
        self.compute_type = torch.bfloat16 if is_fast(device) else torch.float32
        self.embedding = nn.Embedding(shape.vocab_size, shape.width)
        self.blocks = nn.ModuleList(
            Block(shape, has_value_embedding=(shape.depth - 1 - block) % VALUE_EVERY == 0)
            for block in range(shape.depth)
        )
        self.unembedding = nn.Parameter(torch.empty(shape.vocab_size, shape.width))
        self.residual_weight = nn.Parameter(torch.ones(shape.depth))
        self.skip_weight = nn.Parameter(torch.full((shape.depth,), float(SKIP_INIT)))
        self._draw_weights()
        frequency = ROPE_BASE ** -(torch.arange(0, shape.head_size, 2) / shape.head_size)
        angle = torch.outer(torch.arange(shape.sequence_length), frequency)[:, None]  # [T, 1, S/2]
        self.register_buffer("cosine", angle.cos(), persistent=False)
        self.register_buffer("sine", angle.sin(), persistent=False)
        self.to(device)
        if torch.device(device).type == "cuda" and torch.cuda.get_device_capability(device) == (9, 0):
            # On Hopper, cuDNN's attention takes 60% of the time of FlashAttention 2, which PyTorch may prefer.
            torch.backends.cuda.enable_flash_sdp(False)
            torch.backends.cuda.enable_mem_efficient_sdp(False)

    @property
    def layers(self) -> list[Block]:
        """The blocks, first to last."""
        return [block for block in self.blocks if isinstance(block, Block)]

    def matrices(self) -> list[Tensor]:
        """The parameters that Muon trains."""
        return [matrix for block in self.layers for matrix in block.matrices()]

    def _draw_weights(self) -> None:
        """Matrices that write to the residual stream start at zero, so that every block starts as the identity."""
        nn.init.normal_(self.embedding.weight)
        nn.init.normal_(self.unembedding, std=UNEMBEDDING_STD)
        # A uniform distribution has no outliers; the factor sqrt(3) gives it the standard deviation of INIT_SCALE.
        bound = INIT_SCALE * math.sqrt(3 / self.shape.width)
        for block in self.layers:
            nn.init.uniform_(block.qkv, -bound, bound)
            nn.init.zeros_(block.out)
            nn.init.uniform_(block.up, -bound, bound)
            nn.init.zeros_(block.down)
            if block.value_embedding is not None:
                nn.init.uniform_(block.value_embedding.weight, -bound, bound)

    def forward(self, tokens: Tensor) -> Tensor:
        length = tokens.size(1)
        angles = (self.cosine[:length].to(self.compute_type), self.sine[:length].to(self.compute_type))
        x = start = norm(self.embedding(tokens).to(self.compute_type))
        for number, (block, window) in enumerate(zip(self.layers, self.shape.windows, strict=True)):
            x = block(self.residual_weight[number] * x + self.skip_weight[number] * start, tokens, angles, window)
        logits = project(norm(x), self.unembedding).float()
        # LOGIT_CAP * tanh(logits / LOGIT_CAP), without a slow tanh.
        return 2 * LOGIT_CAP * torch.sigmoid(logits * (2 / LOGIT_CAP)) - LOGIT_CAP

    def flops_per_token(self) -> float:
        """Floating-point operations of a training step for one token: 6 for each weight of a matrix product, and
        12 · width for each token of the row, or for half the tokens of a short window, the mean that a token sees."""
        weights = sum(p.numel() for p in [*self.matrices(), self.unembedding])
        length = self.shape.sequence_length
        seen = sum(window if window == length else window / 2 for window in self.shape.windows)
        return 6 * weights + 12 * self.shape.width * seen


def load_model(path: str | os.PathLike[str], device: torch.device | str) -> nn.Module:
    """Restore a trained model for the scorer: from tokens int64 [B, T] to logits float32 [B, T, V]."""
    saved = torch.load(path, map_location="cpu", weights_only=True)
    model = GPT(Shape(**saved["shape"]), device)
    model.load_state_dict(saved["weights"])
    return model.eval()  # not compiled: for one pass over the rows, compiling takes longer than it saves


# ---------------------------------------------------------------------------------------------------------------------
# Optimizers


def number(value: float, like: Tensor) -> Tensor:
    """A number as a tensor on the device of `like`; torch.compile would recompile for each new Python number."""
    return torch.full((), value, device=like.device)


def adam_update(
    weights: Tensor, gradient: Tensor, mean: Tensor, square: Tensor, keep: Tensor, step_size: Tensor, root: Tensor
) -> None:
    """One update in place: of the weights, the running mean of the gradient, and that of the squared gradient."""
    mean.lerp_(gradient, 1 - ADAM_BETA1)
    square.lerp_(gradient.square(), 1 - ADAM_BETA2)
    weights.mul_(keep).sub_(step_size * mean / (square.sqrt() / root + 1e-10))


class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019), for one group of parameters."""

    def __init__(self, parameters: Sequence[Tensor], rate: float, decay: float = 0.0) -> None:
        self.parameters, self.rate, self.decay = list(parameters), rate, decay
        self._update = torch.compile(adam_update, dynamic=False) if is_fast(parameters[0].device) else adam_update
        self.reset()

    def reset(self) -> None:
        """Forget every gradient seen."""
        self.steps = 0
        self.means = [torch.zeros_like(p) for p in self.parameters]
        self.squares = [torch.zeros_like(p) for p in self.parameters]

    @torch.no_grad()
    def step(self, rate_share: float) -> None:
        """One update at this share of the full rate."""
        self.steps += 1
        rate = self.rate * rate_share
        bias, root = 1 - ADAM_BETA1**self.steps, math.sqrt(1 - ADAM_BETA2**self.steps)
        numbers = [number(value, self.parameters[0]) for value in (1 - rate * self.decay, rate / bias, root)]
        for parameter, mean, square in zip(self.parameters, self.means, self.squares, strict=True):
            self._update(parameter.detach(), gradient_of(parameter), mean, square, *numbers)


# Odd quintics a·s + b·s³ + c·s⁵. Applied one after another, they map every s in [0.003, 1] to within 0.015 of 1. Each
# minimises the maximum error on the image of the previous interval, widened by 5%: outside its interval a quintic
# diverges, and rounding to bfloat16 can lead outside.
_QUINTICS = (
    (7.9903, -21.4146, 14.3983),
    (3.8710, -2.6172, 0.4487),
    (3.4240, -2.3359, 0.4219),
    (2.5239, -1.7244, 0.3660),
    (1.9026, -1.2249, 0.3294),
)


def orthogonalise(matrices: Tensor) -> Tensor:
    """Approximately the nearest matrices whose singular values are all 1: [N, rows, columns].

    Odd polynomials of a matrix change only its singular values (Newton-Schulz iterations).
    """
    tall = matrices.size(-2) > matrices.size(-1)
    x = matrices.mT if tall else matrices
    x = x / (1.02 * x.norm(dim=(-2, -1), keepdim=True) + 1e-12)  # so that no singular value is above 1
    for a, b, c in _QUINTICS:
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


def short_side(size: Sequence[int]) -> int:
    """The dimension of a matrix with fewer entries: a mean over it has one number for each row of a tall matrix."""
    return -1 if size[-2] >= size[-1] else -2


def muon_change(
    weights: Tensor,
    gradient: Tensor,
    mean: Tensor,
    square: Tensor,
    momentum: Tensor,
    decay: Tensor,
    compute_type: torch.dtype,
) -> Tensor:
    """The change of matrices [N, rows, columns] at learning rate 1; updates the running means of their gradient and of
    the squares of their orthogonalised changes, in each row (of a wide matrix: column)."""
    mean.lerp_(gradient, 1 - momentum)
    change = orthogonalise(gradient.lerp(mean, momentum).to(compute_type)).float()  # Nesterov
    square.lerp_(change.square().mean(short_side(weights.shape), keepdim=True), 1 - MATRIX_BETA2)
    even = change / (square.sqrt() + 1e-10)
    change = even * (change.norm(dim=(-2, -1), keepdim=True) / (even.norm(dim=(-2, -1), keepdim=True) + 1e-10))
    # Decay only weights that the step shrinks as well; growing weights are not decayed.
    change = change + decay * weights * (change * weights > 0)
    # A tall matrix has more outputs than inputs, so it needs a longer step to change each output equally.
    return change * math.sqrt(max(1.0, weights.size(-2) / weights.size(-1)))


class Muon:
    """Momentum with orthogonalised steps (Muon, Jordan and others, 2024) whose rows are made equally long in the mean
    over steps (NorMuon, Li and others, 2025). For matrices [rows, columns] and stacks of matrices [N, rows, columns].
    All matrices of one size are updated together."""

    def __init__(self, parameters: Sequence[Tensor], rate: float, compute_type: torch.dtype) -> None:
        self.rate, self.compute_type = rate, compute_type
        self._change = torch.compile(muon_change, dynamic=False) if is_fast(parameters[0].device) else muon_change
        self.groups: dict[tuple[int, int], list[Tensor]] = {}
        for parameter in parameters:
            rows, columns = parameter.shape[-2:]
            self.groups.setdefault((rows, columns), []).append(parameter)
        self.reset()

    def reset(self) -> None:
        """Forget every gradient seen."""
        self.means = {size: torch.zeros_like(_stack(group, size)) for size, group in self.groups.items()}
        self.squares = {size: mean.mean(short_side(size), keepdim=True) for size, mean in self.means.items()}

    @torch.no_grad()
    def step(self, rate_share: float, momentum: float, decay: float) -> None:
        """One update at this share of the full rate."""
        for size, group in self.groups.items():
            numbers = number(momentum, group[0]), number(decay, group[0])
            gradient = _stack([gradient_of(p) for p in group], size)
            state = self.means[size], self.squares[size]
            change = self._change(_stack(group, size), gradient, *state, *numbers, self.compute_type)
            parts = torch.split(change, [p.numel() // (size[0] * size[1]) for p in group])
            for parameter, part in zip(group, parts, strict=True):
                parameter.sub_(part.view_as(parameter), alpha=self.rate * rate_share)


def _stack(tensors: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """Copy matrices and stacks of matrices of one size into one stack [N, rows, columns]."""
    return torch.cat([tensor.detach().view(-1, *size) for tensor in tensors])


def gradient_of(parameter: Tensor) -> Tensor:
    """The gradient of a parameter, which must not be None."""
    assert parameter.grad is not None
    return parameter.grad


def adam_groups(model: GPT) -> list[AdamW]:
    """One AdamW optimizer for each group of parameters that Muon does not train."""
    # Each row of an embedding gets few gradients, and their length grows with the width.
    width_factor = math.sqrt(512 / model.shape.width)
    tables = [block.value_embedding.weight for block in model.layers if block.value_embedding is not None]
    return [
        AdamW([model.embedding.weight], EMBEDDING_LR * width_factor),
        AdamW(tables, EMBEDDING_LR * width_factor, VALUE_DECAY),
        AdamW([model.unembedding], UNEMBEDDING_LR * width_factor),
        AdamW([model.residual_weight], RESIDUAL_LR),
        AdamW([model.skip_weight], SKIP_LR),
    ]


def rate_share_at(progress: float) -> float:
    """The learning rate as a share of the full rate, after this share of the budget."""
    rise = progress / WARMUP_FRACTION if progress < WARMUP_FRACTION else 1.0
    left = (1 - progress) / WARMDOWN_FRACTION if progress > 1 - WARMDOWN_FRACTION else 1.0
    return min(rise, LR_FLOOR + (1 - LR_FLOOR) * left)


# ---------------------------------------------------------------------------------------------------------------------
# Training

Batch = tuple[Tensor, Tensor]


def loss_of(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """Mean loss of a target, in nats."""
    logits = model(inputs)
    if not torch.compiler.is_compiling():
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())
    # Compiled, these are one pass over the logits. They are capped, so their exponentials do not overflow.
    is_target = torch.arange(logits.size(-1), device=logits.device) == targets[..., None]
    return (logits.exp().sum(-1).log() - torch.where(is_target, logits, 0.0).sum(-1)).mean()


class Trainer:
    """A new model of the profile's size, its optimizers, and one step of training.

    Attributes:
        batch_rows: Rows on the device at once.
        batches_per_step: Batches whose gradients are added up in one step.
        tokens_per_step: Targets in one step.
        ahead: Steps to launch before waiting for the loss of an earlier step, so that a GPU is never idle.
    """

    def __init__(self, profile: harness.Profile, seed: int) -> None:
        torch.manual_seed(seed)
        self.device = torch.device(profile.device)
        shape, self.batch_rows, step_rows = sizes_of(profile)
        self.batches_per_step = step_rows // self.batch_rows
        self.tokens_per_step = step_rows * shape.sequence_length
        self.ahead = 1 if self.device.type == "cuda" else 0
        self.model = GPT(shape, self.device)
        self.muon = Muon(self.model.matrices(), MATRIX_LR, self.model.compute_type)
        self.adam = adam_groups(self.model)
        self._loss = torch.compile(loss_of, dynamic=False) if is_fast(self.device) else loss_of
        peaks = {"H200": 989.5, "H100": 989.5, "A100": 312.0, "4090": 165.2, "3090": 71.0}  # dense TFLOP/s, bfloat16
        self._peak = next((peak * 1e12 for part, peak in peaks.items() if part in profile.device_name), math.inf)

    def step(self, batches: Sequence[Batch], progress: float) -> Tensor:
        """One step after this share of the budget; returns the mean loss before the step, without waiting for it."""
        total = torch.zeros((), device=self.device)
        for inputs, targets in batches:
            loss = self._loss(self.model, inputs, targets)
            torch.autograd.backward(loss / len(batches))
            total += loss.detach() / len(batches)
        share = rate_share_at(progress)
        for group in self.adam:
            group.step(share)
        momentum = MOMENTUM + (MOMENTUM_START - MOMENTUM) * max(0.0, 1 - progress / MOMENTUM_RAMP_FRACTION)
        self.muon.step(share, momentum, MATRIX_DECAY * (1 - progress))
        self.model.zero_grad(set_to_none=True)
        return total

    def warm_up(self, steps: int) -> float:
        """Take steps on made-up tokens of the run's sizes, then restore the weights; returns the last step's seconds.

        This compiles kernels and allocates memory before the clock starts.
        """
        generator = torch.Generator().manual_seed(0)
        size = (self.batch_rows, self.model.shape.sequence_length + 1)
        tokens = torch.randint(self.model.shape.vocab_size, size, generator=generator).to(self.device)
        made_up = [(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous())] * self.batches_per_step
        weights = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        for _ in range(steps):
            start = time.monotonic()
            self.step(made_up, progress=0.0).item()
        seconds = time.monotonic() - start
        self.model.load_state_dict(weights)
        self.muon.reset()
        for group in self.adam:
            group.reset()
        return seconds

    def mfu_percent(self, steps: int, seconds: float) -> float:
        """Model FLOPs utilisation of these steps, in percent of the device's bfloat16 peak; 0 if that is unknown."""
        return 100 * steps * self.tokens_per_step * self.model.flops_per_token() / (seconds * self._peak)

    def save(self, path: Path) -> float:
        """Write the model atomically: if `path` exists, it is complete. Returns the seconds that this took."""
        start = time.monotonic()
        partial = path.with_name(path.name + ".partial")
        torch.save({"shape": asdict(self.model.shape), "weights": self.model.state_dict()}, partial)
        os.replace(partial, path)
        return time.monotonic() - start


def later(value: Tensor) -> Callable[[], float]:
    """Start to fetch a number from the device; the result waits only for work that is queued on the device now."""
    fetched = value.to("cpu", non_blocking=True)
    event = torch.get_device_module(value.device).Event()
    event.record()

    def wait() -> float:
        event.synchronize()
        return fetched.item()

    return wait


def train(trainer: Trainer, budget: float, path: Path) -> tuple[int, float, float]:
    """Warm up, start the clock, train and save, so that `path` is complete before the budget (seconds) is over.

    Returns the number of steps, the seconds from the start of the clock until the model was saved, and the MFU of the
    steps in percent. Exits with status 1 if the loss is NaN or above 100.
    """
    recent = deque([trainer.warm_up(steps=3 if is_fast(trainer.device) else 1)], maxlen=20)  # seconds of the last steps
    rehearsal = path.with_name("rehearsal.pt")
    # The parent's clock starts slightly earlier than ours, and saving may be slower than in the rehearsal.
    reserve = 0.1 + 3 * trainer.save(rehearsal)
    rehearsal.unlink()
    # Garbage collection would make the number of steps noisy.
    gc.collect()
    gc.freeze()
    gc.disable()

    launched = deque[tuple[float, Callable[[], float]]]()  # progress, and a function that returns the loss
    batches = harness.batches(harness.begin(), trainer.batch_rows, trainer.device, harness.seed())
    start = time.monotonic()
    waiting = list(islice(batches, trainer.batches_per_step))
    first = finished = time.monotonic()
    steps = 0
    while True:
        begun = time.monotonic() - start
        # Reserve the longest recent time for each launched step, and one and a half times as much for the next step.
        usable = budget - reserve - (len(launched) + 1.5) * max(recent)
        if begun < usable or steps + len(launched) == 0:
            progress = min(1.0, begun / usable) if usable > 0 else 1.0
            launched.append((progress, later(trainer.step(waiting, progress))))
            waiting = list(islice(batches, trainer.batches_per_step))  # while the device works
            if len(launched) <= trainer.ahead:
                continue
        elif not launched:
            break
        progress, finish = launched.popleft()
        loss = finish()
        if not loss <= 100.0:
            print("\nFAIL", flush=True)
            sys.exit(1)
        steps += 1
        dt = time.monotonic() - finished
        finished += dt
        recent.append(dt)
        print(
            f"step {steps:05d} ({100 * progress:.1f}%) | loss: {loss:.6f} | lrm: {rate_share_at(progress):.2f} "
            f"| dt: {1000 * dt:.0f}ms | tok/sec: {trainer.tokens_per_step / dt:,.0f} "
            f"| mfu: {trainer.mfu_percent(1, dt):.1f}% | remaining: {max(0.0, usable - begun):.0f}s",
            end="  \r",
            flush=True,
        )
    trainer.save(path)
    print()
    return steps, time.monotonic() - start, trainer.mfu_percent(steps, finished - first)


def peak_memory_mb(device: torch.device) -> float:
    """Peak memory so far, in MiB: allocated memory on a CUDA device, else resident memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def main() -> None:
    """Train within the budget and print the summary; by hand, score the model too."""
    profile = harness.profile()
    folder = harness.out_folder()
    path = (folder or Path(__file__).resolve().parent / "experiments" / "runs" / "by-hand") / "model.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(profile, harness.seed())
    try:
        steps, seconds, mfu = train(trainer, harness.budget_seconds(), path)
    except torch.OutOfMemoryError as error:
        lower = f"lower AUTORESEARCH_DEVICE_BATCH (now {trainer.batch_rows} rows)"
        sys.exit(f"\ntrain.py: CUDA out of memory; {lower} or choose a smaller AUTORESEARCH_PROFILE. PyTorch: {error}")
    summary = {} if folder else {"val_bpb": f"{harness.score(path, __file__)['val_bpb']:.6f}"}
    summary |= {
        "training_seconds": f"{seconds:.2f}",
        "total_seconds": f"{time.time() - psutil.Process().create_time():.1f}",
        "peak_vram_mb": f"{peak_memory_mb(trainer.device):.1f}",
        "mfu_percent": f"{mfu:.2f}",
        "total_tokens_M": f"{steps * trainer.tokens_per_step / 1e6:.3f}",
        "num_steps": str(steps),
        "num_params_M": f"{sum(p.numel() for p in trainer.model.parameters()) / 1e6:.2f}",
        "depth": str(trainer.model.shape.depth),
    }
    print("---")
    for name, value in summary.items():
        print(f"{name}: {value}")


if __name__ == "__main__":
    try:
        main()
    except harness.HarnessError as error:
        sys.exit(f"train.py: {error}")
