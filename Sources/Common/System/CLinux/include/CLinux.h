/* Kernel interfaces that the Glibc module of Swift does not show. */
#ifndef WEIR_CLINUX_H
#define WEIR_CLINUX_H

/* _GNU_SOURCE is defined in CLinux.c only: a header that saw other definitions than the Glibc module
   would give the same types two shapes. */
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

#include "ByteScan.h"

/* Behind _GNU_SOURCE, which the Glibc module is built without. */
int weir_accept4(int listener, struct sockaddr *address, socklen_t *length, int flags);

/* The identity of the calling thread as a number: `pthread_t` is opaque in portable code. */
uintptr_t weir_thread_identity(void);

/* Names the calling thread for `top -H`; 15 bytes. */
void weir_name_thread(const char *name);

/* CLOCK_MONOTONIC in nanoseconds. */
uint64_t weir_monotonic_nanoseconds(void);

/* The wanted signals are blocked in the calling thread (and those that it starts later), and a
   descriptor that reports them is returned; -1 with errno otherwise. `signals` ends with 0. */
int weir_signal_descriptor(const int *signals);

/* The variables of the process, ended by NULL: a global that Swift may not touch. */
char **weir_environment(void);

/* A peer that went away is an error of `send`, never a signal. */
void weir_ignore_sigpipe(void);

/* What memrchr and friends of GNU give: the first `\n` of a range, or NULL. Inline, because the head
   parser calls it for each line. */
static inline const uint8_t *weir_find_line_feed(const uint8_t *start, size_t count) {
    return (const uint8_t *)__builtin_memchr(start, '\n', count);
}

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
