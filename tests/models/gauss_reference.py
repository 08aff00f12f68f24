"""Sections 1 to 4 of docs/format/gauss.md as plain Python: a decoder, slow and simple."""

import struct

HEAD, LOOK, MOVE, REST, TUNE = 0, 64, 5184, 11840, 13376
SAME, DIGIT, LOW, OPACITY, REGION, GATE, FLAG = 14912, 15040, 15104, 15212, 15324, 15340, 15404
HALF = 1 << 20


class Plan:
    def __init__(self, data):
        numbers = struct.unpack("<B4fI6H3H", data)
        self.degree, self.twist, self.opacity = numbers[0], numbers[8], numbers[9]
        self.slims = numbers[12:]
        self.rest = 3 * (self.degree + 1) ** 2 - 3

    def octaves(self, row, d):
        if d in (6, 7):
            difference = ((row[3] + row[4]) >> 1) - row[5]
        elif d == 8:
            difference = row[3] - row[4]
        else:
            return 0
        return sum(slim > abs(difference) for slim in self.slims)


class Bits:
    """A stream of rANS with contexts."""

    def __init__(self, stream, probabilities):
        self.chances = {c: (int(p), int(p)) for c, p in enumerate(probabilities)}
        lanes = 1 << stream[0] if stream else 0
        head = stream[1 : 1 + 5 * lanes]
        self.states = [int.from_bytes(head[5 * i : 5 * i + 5], "little") for i in range(lanes)]
        words = stream[1 + 5 * lanes :]
        self.words = [words[i] | words[i + 1] << 8 for i in range(0, len(words), 2)]
        self.i = 0

    def _move(self, start, freq):
        lane = self.i % len(self.states)
        x = self.states[lane]
        x = freq * (x >> 16) + (x & 0xFFFF) - start
        if x < 1 << 24:
            x = x << 16 | self.words.pop(0)
        self.states[lane] = x
        self.i += 1

    def _slot(self):
        return self.states[self.i % len(self.states)] & 0xFFFF

    def bit(self, c):
        f, s = self.chances[c]
        p = (f + s) >> 1
        bit = int(self._slot() < p)
        self._move(*((0, p) if bit else (p, 65536 - p)))
        a = 65504 if bit else 32
        self.chances[c] = f + ((a - f) >> 4), s + ((a - s) >> 7)
        return bit

    def raw(self, bits):
        if bits == 0:
            return 0
        value = self._slot() >> (16 - bits)
        self._move(value << (16 - bits), 1 << (16 - bits))
        return value

    def number(self, c):
        if self.bit(c):
            return 0
        negative = self.bit(c + 1)
        e = 0
        while e < 21 and self.bit(c + 2 + e):
            e += 1
        m, left = 1, e
        if left:
            h = self.bit(c + 23 + e)
            m, left = 2 * m + h, left - 1
            if 2 <= e <= 10:
                m, left = 2 * m + self.bit(c + 46 + 2 * (e - 2) + h), left - 1
        if left > 16:
            m, left = m << 16 | self.raw(16), left - 16
        m = m << left | self.raw(left)
        return -m if negative else m


class Weight:
    def __init__(self):
        self.x = self.y = 0

    @property
    def w(self):
        return min(max(256 * self.y // (self.x + 1), -512), 512)

    def learn(self, x, y):
        x, y = (min(max(value, -65536), 65536) for value in (x, y))
        self.x += x * x - (self.x >> 6)
        self.y += x * y - (self.y >> 6)


def bucket(x):
    return min(x.bit_length(), 7)


def within(x):
    return min(max(x, -HALF - 1), HALF)


def decode(streams, before, plan, probabilities):
    """The slice after a frame: a dict of lists, `base`, `rest`, `motion`, `active`."""
    bits = Bits(streams["base"], probabilities)
    births = bits.number(HEAD)
    top = bits.raw(5) if births > 1 else 0
    n = len(before["base"]) if before else 0
    gates = _gates(bits, before["active"]) if before else []
    moving = [i for i in range(n) if gates[i] == 1]
    rows = [list(row) for row in before["base"]] if before else []
    rests = [list(row) for row in before["rest"]] if before else []
    motion = [[0] * 13 for _ in range(n)]
    active = [0] * n
    changes = _moves(bits, before, moving, plan) if before else []
    for i, change in zip(moving, changes, strict=True):
        rows[i] = [a + b for a, b in zip(rows[i], change, strict=True)]
        motion[i] = change
        groups = ((0, 3), (3, 6), (6, 9), (9, 10), (10, 13))
        active[i] = 64 + sum(any(change[a:b]) << g for g, (a, b) in enumerate(groups))
    lives = [i for i in range(n) if gates[i] != 2]
    kept = [rows[i] for i in lives]
    base, near = _new(bits, kept, births, top, plan)
    if plan.rest:
        bits = Bits(streams["rest"], probabilities)
        for i, tune in zip(moving, _tunes(bits, before, moving, plan), strict=True):
            rests[i] = [a + b for a, b in zip(rests[i], tune, strict=True)]
            active[i] += 32 * any(tune)
    rest = _rests(bits, [rests[i] for i in lives], near, plan)
    return {
        "base": base,
        "rest": rest,
        "motion": [motion[i] for i in lives] + [[0] * 13] * births,
        "active": [active[i] for i in lives] + [0] * births,
    }


def _gates(bits, active):
    gates, was = [], 0
    for start in range(0, len(active), 32):
        part = active[start : start + 32]
        some = bits.bit(REGION + 8 * was + bucket(sum(a > 0 for a in part)))
        was = some
        for i in range(start, start + len(part)):
            if not some:
                gates.append(0)
                continue
            one, two = (gates[i - back] if i >= back else 0 for back in (1, 2))
            after = active[i + 1] > 0 if i + 1 < len(active) else 0
            c = (active[i] > 0) + 2 * (one > 0) + 4 * (two > 0) + 8 * after + 32 * (one == 2)
            gate = bits.bit(GATE + c)
            gates.append(gate + bits.bit(GATE + 16 + (active[i] > 0)) if gate else 0)
    return gates


def _moves(bits, before, moving, plan):
    errors = [[0] * 3 for _ in range(13)]
    wrong = [0] * 13
    found, flags = [], [0] * 5
    rows = [before["base"][i] for i in moving]
    motions = [before["motion"][i] for i in moving]
    for i, row in enumerate(rows):
        j = _nearest(rows, i, 32)[:1]
        change, now = [0] * 13, list(row)
        for g, (first, end) in enumerate(((0, 3), (3, 6), (6, 9), (9, 10), (10, 13))):
            had = before["active"][moving[i]] >> g & 1
            flags[g] = bits.bit(FLAG + 4 * g + 2 * flags[g] + had)
            for d in range(first, end) if flags[g] else ():
                k = plan.octaves(now, d)
                near, far = (found[j[0]][d], motions[j[0]][d]) if j else (0, 0)
                guesses = [near, motions[i][d], near + motions[i][d] - far]
                best = errors[d].index(min(errors[d]))
                q = within(guesses[best] + (1 << k >> 1)) >> k
                v = bits.number(MOVE + 64 * (8 * d + bucket(wrong[d] >> 3)))
                change[d] = within((q + v) << k)
                now[d] += change[d]
                wrong[d] += 4 * min(abs(v), HALF) - (wrong[d] >> 2)
                for one, guess in enumerate(guesses):
                    e = errors[d][one]
                    errors[d][one] += 16 * min(abs(change[d] - guess), HALF) - (e >> 4)
        found.append(change)
    return found


def _nearest(rows, i, window):
    """The nearest rows before i, the nearest first, of equals the latest."""

    def away(j):
        return sum((a - b) ** 2 for a, b in zip(rows[i][:3], rows[j][:3], strict=True)), -j

    return sorted(range(max(0, i - window), i), key=away)[:3]


def _new(bits, kept, births, top, plan):
    rows = [list(row) for row in kept]
    before = None
    for _ in range(births):
        before = _centre(bits, before, top)
        rows.append([x - HALF for x in before] + [0] * 10)
    weights = [Weight() for _ in range(13)]
    near = []
    for i in range(len(kept), len(rows)):
        found = _nearest(rows, i, len(rows) if kept else 64)
        near.append(found + [i - 1] * (3 - len(found)) if found else [])
        row, x = rows[i], 0
        for d in range(3, 13):
            k = plan.octaves(row, d)
            p, q, r = (rows[j][d] for j in near[-1]) if near[-1] else (0, 0, 0)
            b = bucket((abs(p - q) + abs(p - r)) >> k) if near[-1] else 7
            c = LOOK + 64 * (8 * (d - 3) + b)
            if d == 8:
                count = plan.twist >> k
                m = ((p + (1 << k >> 1)) >> k) % count
                row[d] = (m + bits.number(c)) % count << k
            elif d == 9:
                row[d], x = _opacity(bits, p, q, plan), 0
            else:
                m = (2 * p + q + r + 2) >> 2
                expected = within(m + ((weights[d].w * x) >> 8) + (1 << k >> 1)) >> k
                row[d] = within((expected + bits.number(c)) << k)
                if near[-1]:
                    weights[d].learn(x, row[d] - m)
                x = row[d] - m
    return rows, near


def _centre(bits, before, top):
    if before is None:
        return [bits.raw(5) << 16 | bits.raw(16) for _ in range(3)]

    def digit(level):
        x, y, z = (value >> level & 1 for value in before)
        return 4 * x + 2 * y + z

    level = top
    while level >= 0:
        last = digit(level)
        if last < 7 and not bits.bit(SAME + 8 * min(top - level, 15) + last):
            break
        level -= 1
    if level < 0:
        return list(before)
    t = 1
    for _ in range(3):
        t = 2 * t + bits.bit(DIGIT + 8 * last + t)
    found = []
    for axis, old in enumerate(before):
        value = old >> (level + 1) << 1 | t >> (2 - axis) & 1
        for m in range(level - 1, -1, -1):
            same = old >> (m + 1)
            if value == same:
                z = 2 + 2 * (old >> m & 1) + (old >> (m - 1) & 1 if m else 0)
            else:
                z = int(value > same)
            value = 2 * value + bits.bit(LOW + 36 * axis + 6 * min(level - 1 - m, 5) + z)
        found.append(value)
    return found


def _opacity(bits, p, q, plan):
    n = plan.opacity.bit_length()
    h, t = 1 << (n - 1), 1
    for _ in range(min(n, 4)):
        t = 2 * t + bits.bit(OPACITY + 16 * ((p >= h) + (q >= h)) + t)
    z = t - (1 << min(n, 4))
    value = z
    for number in range(n - 4):
        value = 2 * value + (bits.bit(OPACITY + 48 + 4 * z + number) if number < 4 else bits.raw(1))
    return value


def _band(d):
    return 0 if d < 9 else 1 if d < 24 else 2


def _tunes(bits, before, moving, plan):
    found, flag = [], 0
    for i in moving:
        flag = bits.bit(FLAG + 20 + 2 * flag + (before["active"][i] >> 5 & 1))
        tune, a = [0] * plan.rest, 0
        for d in range(plan.rest) if flag else ():
            tune[d] = within(bits.number(TUNE + 64 * (8 * _band(d) + bucket(a))))
            a = (a >> 1) + abs(tune[d])
        found.append(tune)
    return found


def _rests(bits, kept, near, plan):
    rows = [list(row) for row in kept]
    tells, goes = ([Weight() for _ in range(plan.rest)] for _ in range(2))
    for places in near:
        row, x = [], 0
        for d in range(plan.rest):
            p, q, r = (rows[j][d] for j in places) if places else (0, 0, 0)
            x = 0 if d % 3 == 0 else x
            m = 2 * p + q + r
            t = (tells[d].w * m) >> 10
            c = REST + 64 * (8 * _band(d) + bucket(abs(p) + abs(q) + abs(r) + abs(x)))
            value = within(within(t + ((goes[d].w * x) >> 8)) + bits.number(c))
            tells[d].learn(m >> 2, value)
            goes[d].learn(x, value - t)
            x = value - t
            row.append(value)
        rows.append(row)
    return rows
