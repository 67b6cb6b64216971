// Linked into programs that ThreadSanitizer watches. It does not see into Swift's runtime, which it
// was not built into, and would report whatever two threads share behind
// - a contended Mutex, for which the runtime spins and then asks the kernel;
// - a global constant, which the first who needs it initialises (swift_once).
// The linker (--wrap) puts these functions before the runtime's, and they tell the sanitizer.
#include <stdbool.h>
#include <stdint.h>

// Those of the sanitizer's runtime.
extern void __tsan_acquire(void *address);
extern void __tsan_release(void *address);

#define REAL(symbol) __asm__("__real_" symbol)
#define WRAP(symbol) __asm__("__wrap_" symbol)
#define SWIFT __attribute__((swiftcall))
#define SELF __attribute__((swift_context))

// Synchronization._MutexHandle, whose fast paths are in the callers.
#define LOCK "$s15Synchronization12_MutexHandleV9_lockSlowyys6UInt32VF"
#define TRY_LOCK "$s15Synchronization12_MutexHandleV12_tryLockSlowSbyF"
#define UNLOCK "$s15Synchronization12_MutexHandleV11_unlockSlowyyF"

SWIFT void realLock(uint32_t thread, SELF void *handle) REAL(LOCK);
SWIFT void wrappedLock(uint32_t thread, SELF void *handle) WRAP(LOCK);
SWIFT void wrappedLock(uint32_t thread, SELF void *handle) {
    realLock(thread, handle);
    __tsan_acquire(handle);
}

SWIFT bool realTryLock(SELF void *handle) REAL(TRY_LOCK);
SWIFT bool wrappedTryLock(SELF void *handle) WRAP(TRY_LOCK);
SWIFT bool wrappedTryLock(SELF void *handle) {
    bool isLocked = realTryLock(handle);
    if (isLocked) __tsan_acquire(handle);
    return isLocked;
}

SWIFT void realUnlock(SELF void *handle) REAL(UNLOCK);
SWIFT void wrappedUnlock(SELF void *handle) WRAP(UNLOCK);
SWIFT void wrappedUnlock(SELF void *handle) {
    __tsan_release(handle);
    realUnlock(handle);
}

void realOnce(void *predicate, void (*initialise)(void *), void *context) REAL("swift_once");
void wrappedOnce(void *predicate, void (*initialise)(void *), void *context) WRAP("swift_once");

struct once {
    void *predicate;
    void (*initialise)(void *);
    void *context;
};

static void initialiseAndTell(void *argument) {
    struct once *once = argument;
    once->initialise(once->context);
    __tsan_release(once->predicate);
}

void wrappedOnce(void *predicate, void (*initialise)(void *), void *context) {
    struct once once = {predicate, initialise, context};
    realOnce(predicate, initialiseAndTell, &once);
    __tsan_acquire(predicate);
}
