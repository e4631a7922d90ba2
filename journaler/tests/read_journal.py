"""Reads a journal by docs/FORMATS.md alone: python3 read_journal.py DIR prints its events, each a line of JSON."""
import json, os, struct, sys

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
    return kind_at, kind_size, by_number, (None, fields[:shared])

def value(kind, scale, size, names, raw):
    number = int.from_bytes(raw, "little", signed=kind in (2, 7))
    if kind == 3:
        return number != 0
    if kind == 7:
        whole, rest = divmod(abs(number), 10 ** scale)
        return "-" * (number < 0) + (f"{whole}.{rest:0{scale}}" if scale else str(whole))
    if kind == 9:
        known = [bits for bits in names if bits and number & bits == bits]
        rest = number & ~sum({1 << at for bits in known for at in range(64) if bits >> at & 1})
        return [names[bits] for bits in known] + [rest] * (rest != 0)
    return names.get(number, number) if kind == 8 else number

def shown(schema, position, event):
    kind_at, kind_size, kinds, shared_alone = schema
    number = int.from_bytes(event[kind_at:kind_at + kind_size], "little") if kind_size else next(iter(kinds))
    kind_name, fields = kinds.get(number, shared_alone)
    line = {}
    for name, kind, scale, size, offset, count, names in fields:
        raw = event[offset:offset + size * count]
        if kind == 4:
            line[name] = raw.rstrip(b"\0 ").decode()
        elif kind == 5:
            line[name] = raw.hex()
        elif kind != 10:
            elements = [value(kind, scale, size, names, raw[at:at + size]) for at in range(0, len(raw), size)]
            line[name] = elements[0] if count == 1 else elements
    line = {"position": position, "event": kind_name, "fields": line}
    return json.dumps(line, ensure_ascii=False, separators=(",", ":"))

expected = None
for name in sorted(name for name in os.listdir(sys.argv[1]) if name.endswith(".seg")):
    data = open(os.path.join(sys.argv[1], name), "rb").read()
    if not any(data[:4096]):
        continue
    must(data[:8] == b"LOCKSEG1" and struct.unpack_from("<II", data, 8) == (1, crc(data[16:4096])), name + ": header")
    number, first, _, before = struct.unpack_from("<4Q", data, 48)
    time, segment_bytes = struct.unpack_from("<QQ", data, 96)
    chain, _, _, event_size, schema_bytes = struct.unpack_from("<5I", data, 120)
    must(number == int(name[:12]) and expected in (None, (number, first, chain, time, before)), name + ": not the next")
    schema, salt = schema_of(data[4096:4096 + schema_bytes]), crc(data[32:56])
    data = data.ljust(segment_bytes, b"\0")
    at = 4096 + (schema_bytes + 4095) // 4096 * 4096
    while at < segment_bytes - 4096 and any(data[at:at + 64]):
        mark, where = data[at:at + 64], f"{name}: mark at {at}"
        must(mark[:4] == b"LSM1" and struct.unpack_from("<I", mark, 4)[0] == crc(mark[8:], salt), where)
        mark_at, _, length, _, frames, mark_chain = struct.unpack_from("<5QI", mark, 16)
        must((mark_at, frames, mark_chain) == (at, before, chain) and 0 < length <= segment_bytes - 4160 - at, where)
        at, end = at + 64, at + 64 + length
        while at < end:
            head, where = data[at:at + 64], f"{name}: frame at {at}"
            must(head[:4] == b"LSF1" and struct.unpack_from("<I", head, 4)[0] == crc(head[8:]), where + ", header")
            position, _, _, frame_time, commit, count, body_crc, frame_chain = struct.unpack_from("<5Q3I", head, 8)
            must((position, frame_chain) == (first, chain) and frame_time >= time, where + ", not the next")
            stop = at + 64 + count * event_size
            at, body = stop + -stop % 64, data[at + 64:stop]
            must(at <= end and crc(body) == body_crc and not any(data[stop:at]), where + ", events")
            for one in range(count):
                print(shown(schema, first + one, body[one * event_size:(one + 1) * event_size]))
            first = commit if head[62] == 4 else first + count
            chain, time, before = struct.unpack_from("<I", head, 4)[0], frame_time, before + 1
    expected = number + 1, first, chain, time, before
