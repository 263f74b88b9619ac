# SPDX-License-Identifier: GPL-2.0-or-later
"""What the pages of postcopy-source hold, computed a second time; described in its manual page."""
import struct

PAGE = 4096
MASK = (1 << 64) - 1
STEP = 0x9e3779b97f4a7c15


def mix(v):
    v = ((v ^ v >> 30) * 0xbf58476d1ce4e5b9) & MASK
    v = ((v ^ v >> 27) * 0x94d049bb133111eb) & MASK
    return v ^ v >> 31


def key_of(seed, name):
    h = 0xcbf29ce484222325
    for byte in name.encode():
        h = ((h ^ byte) * 0x100000001b3) & MASK
    return mix(h ^ mix(seed))


def is_zero(key, page_size, percent, page):
    def chosen(salt, unit):
        return mix(key ^ mix((unit + salt) & MASK)) % 100 < percent

    if chosen(page_size, page // (page_size // PAGE)):
        return True
    return page_size > PAGE and chosen(PAGE, page)


def content(seed, name, page, page_size=PAGE, percent=0):
    key = key_of(seed, name)
    if is_zero(key, page_size, percent, page):
        return bytes(PAGE)
    base = mix((key + page * STEP) & MASK)
    return struct.pack("<512Q", *[(base + i * STEP) & MASK for i in range(512)])
