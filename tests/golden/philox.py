"""The random numbers of src/engine/rng.rs once more, in numpy.

Same counters, same float32 operations in the same order, so the same bits.

    uniform(seed, step, stream, n)      the first n elements, in [0, 1)
    normal(seed, step, stream, n)       the first n elements, Box and Muller
    permutation(seed, epoch, n)         the n images in the order of the epoch

Run as a script it prints the table that tests/rng.rs holds. Needs numpy only.
"""

import numpy as np

F = np.float32
U32 = np.uint32
LOW = np.uint64(0xFFFFFFFF)
HALF = np.uint64(32)


def philox4x32_10(counter, key):
    """Four arrays of words for four arrays (or numbers) of counters and two keys; everything is a uint32."""
    c0, c1, c2, c3 = np.broadcast_arrays(*(np.asarray(c, dtype=np.uint64) for c in counter))
    k0, k1 = (int(k) for k in key)
    for _ in range(10):
        a, b = c0 * np.uint64(0xD2511F53), c2 * np.uint64(0xCD9E8D57)
        c0, c1 = (b >> HALF) ^ c1 ^ np.uint64(k0), b & LOW
        c2, c3 = (a >> HALF) ^ c3 ^ np.uint64(k1), a & LOW
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return [c.astype(U32) for c in (c0, c1, c2, c3)]


def blocks(seed, step, stream, n):
    """The words of the first ⌈n/4⌉ blocks of a draw: four arrays."""
    count = (n + 3) // 4
    return philox4x32_10((np.arange(count), step, stream, 0), (seed & 0xFFFFFFFF, seed >> 32))


def unit_log(v):
    """ln v for float32 v in (0, 1]."""
    bits = v.view(np.int32)
    k = (bits - np.int32(0x3F3504F3)) >> np.int32(23)
    f = (bits - (k << np.int32(23))).view(F) - F(1)
    k = k.astype(F)
    z = f * f
    even = F(1.276_211_4e-1) * z + F(1.420_161e-1)
    even = even * z + F(2.000_124e-1)
    even = even * z + F(3.333_333e-1)
    odd = F(-7.635_894_4e-2) * z + F(-1.315_975_3e-1)
    odd = odd * z + F(-1.662_340_2e-1)
    odd = odd * z + F(-2.500_082e-1)
    q = even + f * odd
    y = ((f * z) * q + k * F(1.428_606_8e-6)) - F(0.5) * z
    return (f + y) + k * F(0.693_145_75)


def sincospi(j):
    """Sine and cosine of j/2²⁴ of a turn, for an array of uint32 j below 2²⁴."""
    q = (j + U32(1 << 21)) >> U32(22)
    t = (j - (q << U32(22))).view(np.int32).astype(F) * F(2.0**-22)
    z = t * t
    s = F(-4.685_971_4e-3) * z + F(7.971_252_5e-2)
    s = s * z + F(-6.459_666_5e-1)
    s = s * z + F(1.570_796_4)
    s = s * t
    c = F(8.944_734_6e-4) * z + F(-2.085_559_4e-2)
    c = c * z + F(2.536_685_5e-1)
    c = c * z + F(-1.233_700_5)
    c = c * z + F(1)
    odd = (q & U32(1)) == 1
    s, c = np.where(odd, c, s), np.where(odd, s, c)

    def flip(v, q):
        return (v.view(U32) ^ ((q & U32(2)) << U32(30))).view(F)

    return flip(s, q), flip(c, q + U32(1))


def box_muller(w0, w1):
    """Two arrays of normal numbers from two arrays of words."""
    v = (U32(1 << 24) - (w0 >> U32(8))).astype(F) * F(2.0**-24)
    radius = np.sqrt(F(-2) * unit_log(v))
    s, c = sincospi(w1 >> U32(8))
    return radius * c, radius * s


def uniform(seed, step, stream, n):
    words = np.stack(blocks(seed, step, stream, n), axis=1).reshape(-1)[:n]
    return (words >> U32(8)).astype(F) * F(2.0**-24)


def normal(seed, step, stream, n):
    w = blocks(seed, step, stream, n)
    return np.stack(box_muller(w[0], w[1]) + box_muller(w[2], w[3]), axis=1).reshape(-1)[:n]


def permutation(seed, epoch, n):
    keys = np.stack(philox4x32_10((np.arange(2), epoch, 0, 1), (seed & 0xFFFFFFFF, seed >> 32)), axis=1).reshape(-1)
    bits = max(n - 1, 0).bit_length()
    low_bits = U32(bits // 2)
    low_mask, high_mask = U32((1 << (bits // 2)) - 1), U32((1 << (bits - bits // 2)) - 1)

    def fold(a, m):
        product = a.astype(np.uint64) * np.uint64(m)
        return (product >> HALF).astype(U32) ^ (product & LOW).astype(U32)

    def mix(x, key):
        return fold(fold(x ^ key, 0xD2511F53), 0xCD9E8D57)

    def network(x):
        low, high = x & low_mask, x >> low_bits
        for even, odd in zip(keys[::2], keys[1::2]):
            high = high ^ (mix(low, even) & high_mask)
            low = low ^ (mix(high, odd) & low_mask)
        return (high << low_bits) | low

    x = network(np.arange(n, dtype=U32))
    while (x >= n).any():
        x = np.where(x >= n, network(x), x)
    return x


def fnv(words):
    """FNV-1a over 32-bit words, to compare many numbers by one."""
    h = 0xCBF29CE484222325
    for w in np.asarray(words).view(U32).tolist():
        h = ((h ^ w) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return h


def main():
    for seed, step, stream in [(0, 0, 0), (0x0123456789ABCDEF, 7, 3), (0xFFFFFFFFFFFFFFFF, 4294967295, 1)]:
        u, z = uniform(seed, step, stream, 8191), normal(seed, step, stream, 8191)
        bits = ", ".join(f"{b:#010x}" for b in z[:6].view(U32))
        print(f"({seed:#018x}, {step}, {stream},\n    [{bits}],\n    {fnv(u):#018x}, {fnv(z):#018x}),")
    for seed, epoch, n in [(0, 0, 10), (0x0123456789ABCDEF, 3, 60000), (5, 1, 65536)]:
        p = permutation(seed, epoch, n)
        print(f"({seed:#018x}, {epoch}, {n}, {p[:6].tolist()}, {fnv(p):#018x}),")


if __name__ == "__main__":
    main()
