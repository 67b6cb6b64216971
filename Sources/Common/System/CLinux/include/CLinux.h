/* Kernel interfaces that the Glibc module of Swift does not show. */
#ifndef WEIR_CLINUX_H
#define WEIR_CLINUX_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/socket.h>

/* --- Journal (CRC32C.c) --- */

/* CRC-32C of `count` bytes, continued from `crc` (0 to begin). */
uint32_t weir_crc32c(uint32_t crc, const void *bytes, size_t count);
/* The same without the processor's instruction. */
uint32_t weir_crc32c_portable(uint32_t crc, const void *bytes, size_t count);

/* An entry of the journal is committed by its length word, stored after everything else: whoever
   sees the length sees the entry. */
static inline void weir_store_release_u32(void *address, uint32_t value) {
    __atomic_store_n((uint32_t *)address, value, __ATOMIC_RELEASE);
}
static inline uint32_t weir_load_acquire_u32(const void *address) {
    return __atomic_load_n((const uint32_t *)address, __ATOMIC_ACQUIRE);
}

#endif
