"""Two sets of eleven changes of `train.py`, for `additivity.py`: what each replaces, and by what.

`cpu` was chosen before anything was measured; `h200` has what others report as better for larger models, and half of
it is code.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from curves import edited

Change = tuple[tuple[str, str], ...]  # what is replaced, each exactly once in train.py, and by what

_PRODUCT = '''
class Product8(torch.autograd.Function):
    """A product with a matrix, both in FP8 (e4m3); the gradients are products in bfloat16. x [N, D] is normalised."""

    @staticmethod
    def forward(ctx, x, matrix):
        scale = matrix.abs().amax().float().clamp(min=1e-12) / 448  # the largest number of the type
        one = torch.ones((), device=x.device)
        small = (matrix / scale).to(torch.float8_e4m3fn)
        ctx.save_for_backward(x, matrix)
        rows = x.to(torch.float8_e4m3fn)
        return torch._scaled_mm(
            rows, small.t(), scale_a=one, scale_b=scale, out_dtype=x.dtype, use_fast_accum=True
        )

    @staticmethod
    def backward(ctx, gradient):
        x, matrix = ctx.saved_tensors
        return gradient @ matrix, gradient.t() @ x


def project8(x, matrix):
    """`project` in FP8 on a device that is fast, for x of length about 1 in each dimension."""
    if x.dtype != torch.bfloat16:
        return project(x, matrix)
    return Product8.apply(x.flatten(0, -2), matrix.to(x.dtype)).view(*x.shape[:-1], -1)


class Block(nn.Module):
'''

SETS: dict[str, dict[str, Change]] = {
    "cpu": {
        "matrix rate 0.06": (("MATRIX_LR = 0.04 ", "MATRIX_LR = 0.06 "),),
        "embedding rate 0.6": (("EMBEDDING_LR = 1.0 ", "EMBEDDING_LR = 0.6 "),),
        "unembedding rate 0.005": (("UNEMBEDDING_LR = 0.0073 ", "UNEMBEDDING_LR = 0.005 "),),
        "warmdown 0.5": (("WARMDOWN_FRACTION = 0.7 ", "WARMDOWN_FRACTION = 0.5 "),),
        "initial matrices 1.0": (("INIT_SCALE = 0.68 ", "INIT_SCALE = 1.0 "),),
        "MLP ratio 3": (("MLP_RATIO = 4.0 ", "MLP_RATIO = 3.0 "),),
        "rotary base 10,000": (("ROPE_BASE = 200_000.0 ", "ROPE_BASE = 10_000.0 "),),
        "GELU": (("F.relu(project(norm(x), self.up)).square()", "F.gelu(project(norm(x), self.up))"),),
        "queries times 1.2": (("rotate(norm(query), *angles)", "rotate(1.2 * norm(query), *angles)"),),
        "decay of all weights": (("decay * weights * (change * weights > 0)", "decay * weights"),),
        "half a value embedding": (("self.value_embedding(tokens).to(", "0.5 * self.value_embedding(tokens).to("),),
    },
    "h200": {
        "queries times 1.2": (("rotate(norm(query), *angles)", "rotate(1.2 * norm(query), *angles)"),),
        "windows SSSSL": (('WINDOW_PATTERN = "SSSL" ', 'WINDOW_PATTERN = "SSSSL" '),),
        "warmdown 0.85": (("WARMDOWN_FRACTION = 0.7 ", "WARMDOWN_FRACTION = 0.85 "),),
        "width 640": (("WIDTH_SCALE = 1.0 ", "WIDTH_SCALE = 1.25 "),),
        "half the batch": (("BATCH_SCALE = 1.0 ", "BATCH_SCALE = 0.5 "),),
        "decay of the tables": (
            ("[model.embedding.weight], EMBEDDING_LR * width_factor)",
             "[model.embedding.weight], EMBEDDING_LR * width_factor, 0.001)"),
            ("UNEMBEDDING_LR * width_factor)", "UNEMBEDDING_LR * width_factor, 0.01)"),
        ),
        "mixing weights by layer": (
            ("torch.ones(shape.depth)", "torch.linspace(1.15, 1.05, shape.depth)"),
            ("torch.full((shape.depth,), float(SKIP_INIT))", "torch.linspace(0.2, 0.05, shape.depth)"),
        ),
        "slow mean of the weights of x0": (
            ("AdamW([model.skip_weight], SKIP_LR)", "AdamW([model.skip_weight], SKIP_LR, beta1=0.96)"),
            ("rate: float, decay: float = 0.0) ->", "rate: float, decay: float = 0.0, beta1: float = ADAM_BETA1) ->"),
            ("list(parameters), rate, decay\n", "list(parameters), rate, decay\n        self.beta1 = beta1\n"),
            ("root: Tensor\n) -> None:", "root: Tensor, beta1: Tensor\n) -> None:"),
            ("mean.lerp_(gradient, 1 - ADAM_BETA1)", "mean.lerp_(gradient, 1 - beta1)"),
            ("1 - ADAM_BETA1**self.steps", "1 - self.beta1**self.steps"),
            ("rate / bias, root)]", "rate / bias, root, self.beta1)]"),
        ),
        "momentum falls in the warmdown": (
            ("self.muon.step(share, momentum,", "self.muon.step(share, momentum - 0.1 * (1 - share),"),
        ),
        "gated value embeddings": (
            (
                "    def forward(self, x: Tensor, tokens: Tensor, angles",
                "        heads = shape.width // shape.head_size\n"
                "        self.gate = nn.Parameter(torch.zeros(heads, 32)) if has_value_embedding else None\n\n"
                "    def forward(self, x: Tensor, tokens: Tensor, angles",
            ),
            (
                "value = value + self.value_embedding(tokens).to(x.dtype).view(heads)",
                "gate = 2 * torch.sigmoid(project(x[..., :32], self.gate))[..., None]\n"
                "            value = value + gate * self.value_embedding(tokens).to(x.dtype).view(heads)",
            ),
            (
                "return [self.qkv, self.out, self.up, self.down]",
                "return [self.qkv, self.out, self.up, self.down, *([] if self.gate is None else [self.gate])]",
            ),
        ),
        "products in FP8": (
            ("\nclass Block(nn.Module):\n", _PRODUCT),
            ("project(norm(x), self.up)", "project8(norm(x), self.up)"),
            ("(project(x, matrix).view(heads) for", "(project8(x, matrix).view(heads) for"),
        ),
    },
}  # fmt: skip


def program(chosen: str, setting: Sequence[int], steps: int | None) -> str:
    """`train.py` with the changes of a set for which the setting has a 1; a number of steps replaces the time budget.

    Raises:
        SystemExit: A change does not fit `train.py` any more.
    """
    source = edited("baseline", steps)
    changes = [change for has, change in zip(setting, SETS[chosen].values(), strict=True) if has]
    for old, new in (edit for change in changes for edit in change):
        if source.count(old) != 1:
            sys.exit(f"train.py has no single {old!r} any more: change benchmarks/changes.py with it")
        source = source.replace(old, new)
    return source
