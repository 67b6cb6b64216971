#include "CLinux.h"

/* CRC-32C (Castagnoli, polynomial 0x1EDC6F41, reflected 0x82F63B78): by the SSE4.2 instruction
   where the processor has it, otherwise by a table of one byte. */

static uint32_t weir_crc32c_table[256];

__attribute__((constructor)) static void weir_crc32c_fill(void) {
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t value = i;
        for (int bit = 0; bit < 8; bit++) {
            value = (value >> 1) ^ ((value & 1) ? 0x82F63B78u : 0);
        }
        weir_crc32c_table[i] = value;
    }
}

uint32_t weir_crc32c_portable(uint32_t crc, const void *bytes, size_t count) {
    const uint8_t *next = bytes;
    crc = ~crc;
    for (size_t i = 0; i < count; i++) {
        crc = (crc >> 8) ^ weir_crc32c_table[(crc ^ next[i]) & 0xFF];
    }
    return ~crc;
}

#if defined(__x86_64__)
#include <nmmintrin.h>
#include <string.h>

__attribute__((target("sse4.2"))) static uint32_t weir_crc32c_sse42(
    uint32_t crc, const void *bytes, size_t count
) {
    const uint8_t *next = bytes;
    uint64_t value = ~crc;
    for (; count >= 8; count -= 8, next += 8) {
        uint64_t word;
        memcpy(&word, next, 8);
        value = _mm_crc32_u64(value, word);
    }
    for (; count > 0; count--, next++) value = _mm_crc32_u8((uint32_t)value, *next);
    return ~(uint32_t)value;
}

uint32_t weir_crc32c(uint32_t crc, const void *bytes, size_t count) {
    static int supported = -1;
    if (supported < 0) supported = __builtin_cpu_supports("sse4.2") != 0;
    return supported ? weir_crc32c_sse42(crc, bytes, count)
                     : weir_crc32c_portable(crc, bytes, count);
}
#else
uint32_t weir_crc32c(uint32_t crc, const void *bytes, size_t count) {
    return weir_crc32c_portable(crc, bytes, count);
}
#endif
