"""Both coders in plain Python integers, from docs/format/entropy.md: slow, and the oracle.

A call is (tables, indexes, symbols); symbols are ignored when decoding.
"""

from functools import cache

SYMBOL_MAX = 2**20


class RefusedError(Exception):
    """The stream is not one that an encoder writes."""


@cache
def entries(tables, t, bits):
    """(start, freq) of each entry of table t, in units of 2**-bits."""
    row = [int(c) << (bits - tables.precision) for c in tables.cdf[t]]
    return [(row[c], row[c + 1] - row[c]) for c in range(int(tables.sizes[t]))]


def uniform(value, n, bits):
    return value << (bits - n), 1 << (bits - n)


def among(choices):
    """What finds a slot in a table: the number of its entry, start and freq."""
    return lambda slot: max((c, *entry) for c, entry in enumerate(choices) if entry[0] <= slot)


def of_bits(n, bits):
    """What finds a slot among 2**n numbers."""
    return lambda slot: (slot >> bits - n, *uniform(slot >> bits - n, n, bits))


def escape_of(symbol, first, last):
    """Length and rest of a symbol outside first..last."""
    value = 2 * (first - symbol) if symbol < first else 2 * (symbol - last) - 1
    length = value.bit_length() - 1
    return length, value - 2**length


def symbol_of(length, rest, first, last):
    value = 2**length + rest
    symbol = first - value // 2 if value % 2 == 0 else last + (value + 1) // 2
    if abs(symbol) > SYMBOL_MAX:
        raise RefusedError
    return symbol


def support(tables, t):
    first = int(tables.offsets[t])
    return first, first + int(tables.sizes[t]) - 2


def order(indexes, by_table):
    places = range(len(indexes))
    return sorted(places, key=lambda i: indexes[i]) if by_table else list(places)


def halves(length, widest):
    """The bits of each number that an escape's rest is written as."""
    return [n for n in (length - widest, min(length, widest)) if n > 0]


def operations(call, bits, by_table, widest):
    """(start, freq) of all that a call codes, in the order of the stream."""
    tables, indexes, symbols = call
    outside = []
    for i in order(indexes, by_table):
        first, last = support(tables, indexes[i])
        column = int(symbols[i]) - first if first <= symbols[i] <= last else last - first + 1
        yield entries(tables, int(indexes[i]), bits)[column]
    for i, symbol in enumerate(symbols):
        first, last = support(tables, indexes[i])
        if not first <= symbol <= last:
            outside.append(escape_of(int(symbol), first, last))
    for length, _ in outside:
        yield uniform(length, 5, bits)
    for length, rest in outside:
        for n in halves(length, widest):
            upper = length > widest and n == length - widest
            yield uniform(rest >> widest if upper else rest % 2 ** min(length, widest), n, bits)


def read_call(take, call, bits, by_table, widest):
    """The symbols of a call; `take` gives the next of what a slot is looked up in."""
    tables, indexes, _ = call
    symbols = [0] * len(indexes)
    outside = []
    for i in order(indexes, by_table):
        column = take(among(entries(tables, int(indexes[i]), bits)))
        symbols[i] = support(tables, indexes[i])[0] + column
        if column == tables.sizes[indexes[i]] - 1:
            outside.append(i)
    outside.sort()

    def number(n):
        return take(of_bits(n, bits)) if n else 0

    lengths = [number(5) for _ in outside]
    if max(lengths, default=0) > 22:
        raise RefusedError
    for i, length in zip(outside, lengths, strict=True):
        rest = 0
        for n in halves(length, widest):
            rest = rest << n | number(n)
        symbols[i] = symbol_of(length, rest, *support(tables, indexes[i]))
    return symbols


def rans_encode(calls, lanes_log2):
    ops = [op for call in calls for op in operations(call, 16, by_table=False, widest=16)]
    lanes = [1 << 24] * (1 << lanes_log2)
    words = []
    for k in reversed(range(len(ops))):
        start, freq = ops[k]
        x = lanes[k % len(lanes)]
        if x >= freq << 24:
            words.append(x & 0xFFFF)
            x >>= 16
        lanes[k % len(lanes)] = (x // freq << 16) + x % freq + start
    if not ops:
        return b""
    head = bytes([lanes_log2]) + b"".join(x.to_bytes(5, "little") for x in lanes)
    return head + b"".join(word.to_bytes(2, "little") for word in reversed(words))


def rans_decode(stream, calls):
    count = 1 << stream[0] if stream else 0
    lanes = [int.from_bytes(stream[1 + 5 * i : 6 + 5 * i], "little") for i in range(count)]
    words = stream[1 + 5 * count :]
    k = 0

    def take(find):
        nonlocal k, words
        if not lanes:
            raise RefusedError
        x = lanes[k % count]
        slot = x % 2**16
        found, start, freq = find(slot)
        x = freq * (x >> 16) + slot - start
        if x < 1 << 24:
            if len(words) < 2:
                raise RefusedError
            x = x << 16 | int.from_bytes(words[:2], "little")
            words = words[2:]
        lanes[k % count] = x
        k += 1
        return found

    found = [read_call(take, call, 16, by_table=False, widest=16) for call in calls]
    if words or any(x != 1 << 24 for x in lanes):
        raise RefusedError
    return found


def range_encode(calls):
    ops = [op for call in calls for op in operations(call, 24, by_table=True, widest=24)]
    low, size, bits = 0, 2**64 - 1, 64
    for start, freq in [*ops, uniform(128, 8, 24)] if ops else []:
        unit = size >> 24
        low, size = low + unit * start, unit * freq
        if size < 2**32:
            low, size, bits = low << 32, size << 32, bits + 32
    for length in range(bits // 8 + 1):
        step = 2 ** (bits - 8 * length)
        point = -(-low // step)
        if point * step < low + size:
            return point.to_bytes(length, "big")
    raise AssertionError


def range_decode(stream, calls):
    point, size, at = int.from_bytes(stream[:8].ljust(8, b"\0"), "big"), 2**64 - 1, 8

    def take(find):
        nonlocal point, size, at
        slot = point // (size >> 24)
        if slot >= 2**24:
            raise RefusedError
        found, start, freq = find(slot)
        point, size = point - (size >> 24) * start, (size >> 24) * freq
        if size < 2**32:
            word = stream[at : at + 4].ljust(4, b"\0")
            point, size, at = point << 32 | int.from_bytes(word, "big"), size << 32, at + 4
        return found

    found = [read_call(take, call, 24, by_table=True, widest=24) for call in calls]
    if any(found) and take(of_bits(8, 24)) != 128:
        raise RefusedError
    again = [(*call[:2], symbols) for call, symbols in zip(calls, found, strict=True)]
    if range_encode(again) != stream:
        raise RefusedError
    return found
