"""Reads a journal by docs/FORMATS.md alone: python3 read_journal.py DIR prints its events, a line each."""
import os, struct, sys

TABLE = []
for byte in range(256):
    for _ in range(8):
        byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
    TABLE.append(byte)

def crc(data, seed=0):
    value = seed ^ 0xFFFFFFFF
    for byte in data:
        value = TABLE[(value ^ byte) & 255] ^ value >> 8
    return value ^ 0xFFFFFFFF

def must(truth, what):
    if not truth:
        sys.exit("damaged: " + what)

def text(raw):
    return raw.rstrip(b"\0").decode()

def schema_of(raw):
    length, check = struct.unpack_from("<II", raw, 8)
    must(raw[:8] == b"LOCKSCHM" and crc(raw[16:length]) == check, "descriptor")
    kind_at, kind_size, shared, fields, kinds, values = struct.unpack_from("<6I", raw, 32)
    rows = [raw[128 + 64 * at:][:64] for at in range(fields + kinds)]
    names = [raw[128 + 64 * (fields + kinds) + 48 * at:][:48] for at in range(values)]
    names = [(struct.unpack_from("<q", row)[0], text(row[8:])) for row in names]
    def field(row):
        kind, scale, size, offset, count, first, number = struct.unpack_from("<BBHIIII", row, 32)
        return text(row[:32]), kind, scale, size, offset, count, dict(names[first:first + number])
    fields, kinds = [field(row) for row in rows[:fields]], rows[fields:]
    by_number = {}
    for row in kinds:
        number, first, count = struct.unpack_from("<III", row)
        by_number[number] = text(row[16:]), fields[:shared] + fields[first:first + count]
    return kind_at, kind_size, by_number

def value(kind, scale, size, names, raw):
    number = int.from_bytes(raw, "little", signed=kind in (2, 7))
    if kind == 7:
        whole, rest = divmod(abs(number), 10 ** scale)
        return "-" * (number < 0) + (f"{whole}.{rest:0{scale}}" if scale else str(whole))
    if kind == 9:
        return "|".join(name for bit, name in names.items() if number & bit) or "0"
    return names.get(number, str(number))

def show(schema, event):
    kind_at, kind_size, kinds = schema
    number = int.from_bytes(event[kind_at:kind_at + kind_size], "little") if kind_size else next(iter(kinds))
    kind_name, fields = kinds[number]
    shown = [kind_name]
    for name, kind, scale, size, offset, count, names in fields:
        raw = event[offset:offset + size * count]
        elements = [raw[at:at + size] for at in range(0, len(raw), size)]
        if kind == 4: shown.append(f"{name}={raw.rstrip(bytes([0, 32])).decode()}")
        elif kind == 5: shown.append(f"{name}={raw.hex()}")
        elif kind != 10: shown.append(f"{name}=" + ",".join(value(kind, scale, size, names, one) for one in elements))
    return " ".join(shown)

chain = None
for name in sorted(name for name in os.listdir(sys.argv[1]) if name.endswith(".seg")):
    data = open(os.path.join(sys.argv[1], name), "rb").read()
    if not any(data[:4096]):
        continue
    must(data[:8] == b"LOCKSEG1" and struct.unpack_from("<II", data, 8) == (1, crc(data[16:4096])), name)
    segment_bytes, = struct.unpack_from("<Q", data, 104)
    prev_chain, _, _, event_size, schema_bytes = struct.unpack_from("<5I", data, 120)
    must(chain in (None, prev_chain), name + ": chain")
    chain, schema, salt = prev_chain, schema_of(data[4096:4096 + schema_bytes]), crc(data[32:56])
    data = data.ljust(segment_bytes, b"\0")
    at = 4096 + (schema_bytes + 4095) // 4096 * 4096
    while at < segment_bytes - 4096 and any(data[at:at + 64]):
        mark = data[at:at + 64]
        must(mark[:4] == b"LSM1" and struct.unpack_from("<I", mark, 4)[0] == crc(mark[8:], salt), f"{name} mark at {at}")
        must(struct.unpack_from("<Q", mark, 16)[0] == at, f"{name} mark at {at}")
        at, end = at + 64, at + 64 + struct.unpack_from("<Q", mark, 32)[0]
        while at < end:
            head = data[at:at + 64]
            must(head[:4] == b"LSF1" and struct.unpack_from("<I", head, 4)[0] == crc(head[8:]), f"{name} frame at {at}")
            count, body_crc, before = struct.unpack_from("<III", head, 48)
            must(before == chain, f"{name} chain at {at}")
            chain, = struct.unpack_from("<I", head, 4)
            first, = struct.unpack_from("<Q", head, 8)
            body = data[at + 64:at + 64 + count * event_size]
            must(crc(body) == body_crc, f"{name} events at {at}")
            for number in range(count):
                print(first + number, show(schema, body[number * event_size:(number + 1) * event_size]))
            at += 64 + (len(body) + 63) // 64 * 64
