/* How far a run of bytes of one class goes (RFC 9110 §5.6.2 and §5.5, RFC 3986): the inner loops of
   the head parser. In C because its vectors compile to a handful of instructions for sixteen bytes
   on every processor that we run on; each function reads `count` bytes at most. */
#ifndef WEIR_BYTESCAN_H
#define WEIR_BYTESCAN_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Bits of `weir_byte_classes`. */
#define WEIR_CLASS_TOKEN 1
#define WEIR_CLASS_TARGET 2
#define WEIR_CLASS_HOST 4
extern const uint8_t weir_byte_classes[256];

typedef uint8_t weir_vector __attribute__((vector_size(16)));
typedef char weir_signed __attribute__((vector_size(16)));
typedef uint64_t weir_words __attribute__((vector_size(16)));

/* The index of the first byte of `hits` that is set, all its bits being the same; 16 for none. */
static inline size_t weir_first_hit(weir_vector hits) {
#ifdef __SSE2__
    int mask = __builtin_ia32_pmovmskb128((weir_signed)hits);
    return mask ? (size_t)__builtin_ctz((unsigned)mask) : 16;
#else
    weir_words words = (weir_words)hits;
#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the first byte must be the lowest one of its word"
#endif
    if (words[0]) return (size_t)__builtin_ctzll(words[0]) / 8;
    if (words[1]) return 8 + (size_t)__builtin_ctzll(words[1]) / 8;
    return 16;
#endif
}

static inline int weir_is_field_value(uint8_t byte) {
    return (byte >= 0x20 && byte != 0x7F) || byte == '\t';
}

/* Bytes of a field value: `field-vchar`, obs-text, space and tab. */
static inline size_t weir_field_value_count(const uint8_t *start, size_t count) {
    size_t index = 0;
    while (index + 16 <= count) {
        weir_vector bytes;
        memcpy(&bytes, start + index, 16);
        size_t hit = weir_first_hit((weir_vector)((bytes < 0x20) | (bytes == 0x7F)));
        index += hit;
        if (hit == 16) continue;
        if (start[index] != '\t') return index;
        index++;
    }
    while (index < count && weir_is_field_value(start[index])) index++;
    return index;
}

/* Bytes of a token. Most of those in field names are letters and hyphens. */
static inline size_t weir_token_count(const uint8_t *start, size_t count) {
    size_t index = 0;
    while (index + 16 <= count) {
        weir_vector bytes;
        memcpy(&bytes, start + index, 16);
        weir_vector letters = (weir_vector)((bytes | 0x20) - 'a' < 26);
        weir_vector hyphens = (weir_vector)(bytes == '-');
        size_t hit = weir_first_hit(~(letters | hyphens));
        index += hit;
        if (hit == 16) continue;
        if (!(weir_byte_classes[start[index]] & WEIR_CLASS_TOKEN)) return index;
        index++;
    }
    while (index < count && weir_byte_classes[start[index]] & WEIR_CLASS_TOKEN) index++;
    return index;
}

/* Bytes of a request target: RFC 3986, and `{`, `|`, `}`, which clients send unescaped. No
   fragment, nothing that servers read differently (`\`), nothing beyond ASCII. */
static inline size_t weir_target_count(const uint8_t *start, size_t count) {
    size_t index = 0;
    while (index < count && weir_byte_classes[start[index]] & WEIR_CLASS_TARGET) index++;
    return index;
}

/* Bytes of a registered name: letters, digits and `-._~%`. */
static inline size_t weir_host_count(const uint8_t *start, size_t count) {
    size_t index = 0;
    while (index < count && weir_byte_classes[start[index]] & WEIR_CLASS_HOST) index++;
    return index;
}

#endif
