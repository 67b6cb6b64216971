/* How often the calling thread has asked for memory. Linking this target puts counting functions
   before those of glibc. */
#ifndef WEIR_ALLOCATION_COUNTER_H
#define WEIR_ALLOCATION_COUNTER_H
#include <stdint.h>
uint64_t weir_thread_allocations(void);
#endif
