"""Counts the comparisons that sort.py needs, and times it. No experiment may edit this file."""

import random
import time

from sort import sort

REPEATS = 5


class Counted(int):
    """A number that counts how often it is compared."""

    comparisons = 0

    def __lt__(self, other):
        Counted.comparisons += 1
        return int.__lt__(self, other)


def lists():
    """The same lists in every run: the count then says something of the program alone."""
    rng = random.Random(1)
    for length in (10, 100, 1000):
        yield [rng.randrange(10**6) for _ in range(length)]
        yield [rng.randrange(5) for _ in range(length)]
        yield list(range(length))
        yield list(range(length, 0, -1))


def seconds():
    """The best of several times: whatever else the machine does can only add to one."""
    times = []
    for _ in range(REPEATS):
        given = list(lists())
        begin = time.perf_counter()
        for values in given:
            sort(values)
        times.append(time.perf_counter() - begin)
    return min(times)


for values in lists():
    counted = [Counted(value) for value in values]
    sort(counted)
    if counted != sorted(values) or not all(type(value) is Counted for value in counted):
        raise SystemExit("sort.py does not sort")

print(f"METRIC comparisons={Counted.comparisons}")
print(f"METRIC milliseconds={1000 * seconds():.3f}")
