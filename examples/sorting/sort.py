"""Shell sort: insertion sort over shrinking gaps. The file that experiments edit."""

GAP_RATIO = 3.0  # each gap is the one before, divided by this
FIRST_GAP_SHARE = 0.5  # the first gap, as a share of the length


def sort(values):
    """Sort a list in place."""
    gap = max(1, int(len(values) * FIRST_GAP_SHARE))
    while True:
        for start in range(gap, len(values)):
            value, place = values[start], start
            while place >= gap and value < values[place - gap]:
                values[place] = values[place - gap]
                place -= gap
            values[place] = value
        if gap == 1:
            return
        gap = max(1, int(gap / GAP_RATIO))
