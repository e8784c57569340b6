"""How few bits a text takes: each byte is predicted from the bytes before it, and costs -log2 of its probability.

Several models predict each byte. The model of order n has counted what followed the last n bytes so far. Their
predictions are mixed; models that predicted well count for more. `AUTORESEARCH_SEED` chooses the part of text.txt.
"""

import math
import os
import random
import time
from collections import Counter, defaultdict
from pathlib import Path

BYTES = 12_000  # of the text, for each run

ORDER_0 = True  # the model without any byte before it; the next have 1, 2, 3 and 5
ORDER_1 = False
ORDER_2 = False
ORDER_3 = False
ORDER_5 = False

UNSEEN = 1.0  # what a byte counts that was never seen
SEEN = 1.0  # what a byte counts for each time that it was seen
MOST = 200.0  # the sum of counts above which all are halved, so that a model forgets
TRUST = 0.0  # how much the mixture favours models that predicted well; 0: all are equal
FORGET = 1.0  # how much of that it remembers from byte to byte


def orders():
    """The orders of the models that are used."""
    return [order for order, used in enumerate((ORDER_0, ORDER_1, ORDER_2, ORDER_3, False, ORDER_5)) if used]


class Model:
    """Counts of what followed each context of so many bytes."""

    def __init__(self, order):
        self.order = order
        self.counts = defaultdict(Counter)
        self.sums = Counter()

    def probability(self, context, byte):
        """Of this byte after the context."""
        return (self.counts[context][byte] + UNSEEN) / (self.sums[context] + 256 * UNSEEN)

    def learn(self, context, byte):
        """Count the byte after the context."""
        self.counts[context][byte] += SEEN
        self.sums[context] += SEEN
        if self.sums[context] > MOST:
            counts = self.counts[context]
            for seen in counts:
                counts[seen] /= 2
            self.sums[context] = sum(counts.values())


def bits(text):
    """What the text takes in all."""
    models = [Model(order) for order in orders()]
    merit = [0.0] * len(models)  # the logarithm of how well each predicted
    total = 0.0
    for at, byte in enumerate(text):
        contexts = [text[max(0, at - model.order) : at] for model in models]
        chances = [model.probability(context, byte) for model, context in zip(models, contexts, strict=True)]
        best = max(merit)
        weights = [math.exp(TRUST * (one - best)) for one in merit]
        total -= math.log2(sum(w * p for w, p in zip(weights, chances, strict=True)) / sum(weights))
        for number, (model, context) in enumerate(zip(models, contexts, strict=True)):
            merit[number] = FORGET * merit[number] + math.log(chances[number])
            model.learn(context, byte)
    return total


def main():
    text = Path(__file__).with_name("text.txt").read_bytes()
    start = random.Random(os.environ.get("AUTORESEARCH_SEED", "0")).randrange(len(text) - BYTES)
    began = time.perf_counter()
    total = bits(text[start : start + BYTES])
    print(f"METRIC bits_per_byte={total / BYTES:.6f}")
    print(f"METRIC seconds={time.perf_counter() - began:.3f}")


if __name__ == "__main__":
    main()
