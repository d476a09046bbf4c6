"""What a GGUF's header says, for the scripts beside it. Standard library only."""
import math
import struct

FIXED = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 8

    def take(self, form):
        values = struct.unpack_from('<' + form, self.data, self.at)
        self.at += struct.calcsize('<' + form)
        return values[0] if len(values) == 1 else values

    def text(self):
        n = self.take('Q')
        self.at += n
        return self.data[self.at - n:self.at]

    def value(self, kind):
        """Its bytes are passed over; of a number the number."""
        if kind == 8:
            return self.text()
        if kind == 9:
            element, n = self.take('IQ')
            for _ in range(n):
                self.value(element)
            return None
        self.at += FIXED[kind]
        return int.from_bytes(self.data[self.at - FIXED[kind]:self.at], 'little')


def header(data):
    """(where the keys begin and end, {name: number or text} of the keys, [(name, ne, type, offset)], where tensors begin)"""
    r = Reader(data)
    n_tensors, n_kv = r.take('qq')
    begin, keys, infos = r.at, {}, []
    for _ in range(n_kv):
        name = r.text().decode()
        keys[name] = r.value(r.take('I'))
    end = r.at
    for _ in range(n_tensors):
        name = r.text().decode()
        ne = tuple(struct.unpack_from(f'<{r.take("I")}q', data, r.at))
        r.at += 8 * len(ne)
        infos.append((name, ne, r.take('I'), r.take('Q')))
    return (begin, end), keys, infos, (r.at + 31) // 32 * 32


def places(data):
    """{name: (numbers, where they begin)}"""
    _, _, infos, base = header(data)
    return {name: (math.prod(ne), base + offset) for name, ne, _, offset in infos}
