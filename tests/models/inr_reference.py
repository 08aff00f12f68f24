"""Latents of `inr` from docs/format/inr.md in plain Python integers: slow, and the oracle.

`code` is asked for each latent in order, with its table's number, the integer nearest to its mean
and whether the table is mirrored, and gives the latent; it may know it or decode it.
"""

CONTEXTS = (
    (0, -1), (-1, 0), (-1, -1), (-1, 1), (0, -2), (-2, 0), (-3, 0), (0, -3), (-1, -2), (-2, 1),
    (-2, -1), (-1, 2), (-2, -2), (-1, -3), (-2, 2), (-3, 1), (0, -4), (-1, 3), (-2, -3), (-2, 3),
)  # fmt: skip
# Level, and whether the grid is hyper, in the order of coding.
GRIDS = [(6, 1), (5, 1), (4, 1), (6, 0), (5, 0), (4, 0), (3, 0), (2, 0), (1, 0), (0, 0)]


def clipped(value, bound):
    return max(-bound, min(bound, value))


def rounded(value, shift):
    return (value + (1 << shift - 1)) >> shift


def affine(weight, x, bias):
    return [
        sum(int(w) * v for w, v in zip(row, x, strict=True)) + int(b)
        for row, b in zip(weight, bias, strict=True)
    ]


def activation(acc):
    return clipped(rounded(acc, 8), 2**31)


def features(integers, level, row, column, done):
    """Of a position of y_level; `done` has the grids before it as lists of rows."""
    u = []
    for (other, _), grid in zip(GRIDS, done, strict=False):
        shift = other - level - 1
        u.append(grid[row >> 1 >> shift][column >> 1 >> shift] << 12)
    acc = affine(integers[f"ifce.{level}.weight"], u, integers[f"ifce.{level}.bias"])
    return [activation(a) for a in acc]


def prediction(integers, x):
    """Number of the table, the nearest integer to the mean, whether the table is mirrored."""
    h = x
    for layer in ("arm.0", "arm.1"):
        acc = affine(integers[f"{layer}.weight"], h, integers[f"{layer}.bias"])
        h = [max(0, activation(a + (v << 8))) for a, v in zip(acc, h, strict=True)]
    last = affine(integers["arm.out.weight"], h, integers["arm.out.bias"])
    skip = affine(integers["arm.skip.weight"], x, [0, 0])
    mean, scale = (a + b for a, b in zip(last, skip, strict=True))
    fine = clipped(rounded(mean, 15), 2**16)
    centre = (fine + 16) >> 5
    phase = fine - 32 * centre
    index = max(0, min(63, rounded(scale, 17) + 24))
    return 64 * abs(phase) + index, centre, phase < 0


def walk(integers, height, width, coded, neighbours, inputs, code):
    """All grids, as lists of rows."""
    done = []
    for (level, hyper), some in zip(GRIDS, coded, strict=True):
        h, w = -(-height >> level), -(-width >> level)
        grid = [[0] * w for _ in range(h)]
        for row in range(h if some else 0):
            for column in range(w):
                x = []
                for down, right in CONTEXTS[:neighbours]:
                    r, c = row + down, column + right
                    x.append(grid[r][c] << 12 if r >= 0 and 0 <= c < w else 0)
                if level < 3 and not hyper:
                    x += features(integers, level, row, column, done)
                x += [0] * (inputs - len(x))
                grid[row][column] = code(*prediction(integers, x))
        done.append(grid)
    return done


def entry_of(latent, tables, t, centre, mirrored):
    """Which entry of table t codes a latent; its last, the escape, where no other does."""
    distance = centre - latent if mirrored else latent - centre
    entry, last = distance - int(tables.offsets[t]), int(tables.sizes[t]) - 1
    return entry if 0 <= entry < last else last


def operations(latents, tables):
    """A `code` that knows the latents, and the list of (start, freq) that it fills."""
    known, ops = iter(latents), []

    def code(t, centre, mirrored):
        latent = next(known)
        entry = entry_of(latent, tables, t, centre, mirrored)
        start, end = (int(c) for c in tables.cdf[t, entry : entry + 2])
        ops.append((start, end - start))
        if entry == tables.sizes[t] - 1:
            ops.append(((latent + 2048) << 4, 16))
        return latent

    return code, ops


def decoding(words, states, tables):
    """A `code` that decodes; words that are missing are 0."""
    words, done = iter(words), [0]

    def advance(find):
        lane = done[0] % len(states)
        done[0] += 1
        slot = states[lane] % 2**16
        start, freq, found = find(slot)
        states[lane] = freq * (states[lane] >> 16) + slot - start
        if states[lane] < 2**24:
            states[lane] = states[lane] << 16 | next(words, 0)
        return found

    def code(t, centre, mirrored):
        row = [int(c) for c in tables.cdf[t, : tables.sizes[t] + 1]]

        def among(slot):
            entry = max(e for e, start in enumerate(row) if start <= slot)
            return row[entry], row[entry + 1] - row[entry], entry

        entry = advance(among)
        if entry == tables.sizes[t] - 1:
            return advance(lambda slot: (slot >> 4 << 4, 16, slot >> 4)) - 2048
        distance = entry + int(tables.offsets[t])
        return centre - distance if mirrored else centre + distance

    return code
