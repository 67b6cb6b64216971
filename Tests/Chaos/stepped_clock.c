/* The clocks of one process, moved while it runs: preloaded into a program, it adds to
 * CLOCK_REALTIME and to CLOCK_BOOTTIME what a file says, which whoever steps the clock writes.
 * CLOCK_MONOTONIC is never touched: neither a step of the wall clock nor a sleep of the machine
 * moves it.
 *
 * STEPPED_CLOCK names the file: two 64-bit numbers of nanoseconds, for REALTIME and for BOOTTIME. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define NANO 1000000000LL
/* Deadlines on CLOCK_REALTIME are seconds since 1970; on other clocks since the machine began. */
#define REALTIME_SECONDS_MIN 1000000000LL

struct steps {
    _Atomic int64_t realtime, boottime;
};

static struct steps still;
static struct steps *steps = &still;

__attribute__((constructor)) static void map_steps(void) {
    const char *path = getenv("STEPPED_CLOCK");
    if (!path) return;
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) _exit(126);
    void *mapped = mmap(NULL, sizeof *steps, PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (mapped == MAP_FAILED) _exit(126);
    steps = mapped;
}

static void add(struct timespec *time, int64_t nanoseconds) {
    int64_t sum = time->tv_sec * NANO + time->tv_nsec + nanoseconds;
    if (sum < 0) sum = 0;
    time->tv_sec = sum / NANO;
    time->tv_nsec = sum % NANO;
}

static int (*next_gettime(void))(clockid_t, struct timespec *) {
    static int (*_Atomic found)(clockid_t, struct timespec *);
    if (!found) found = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    return found;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    int result = next_gettime()(clock, time);
    if (result != 0) return result;
    if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE || clock == CLOCK_TAI)
        add(time, steps->realtime);
    else if (clock == CLOCK_BOOTTIME)
        add(time, steps->boottime);
    return 0;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone) {
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    time->tv_sec = now.tv_sec;
    time->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *into) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (into) *into = now.tv_sec;
    return now.tv_sec;
}

/* The kernel waits by its own clock, so a deadline read from the moved one is moved back. */
static struct timespec by_kernel(const struct timespec *deadline) {
    struct timespec moved = *deadline;
    if (moved.tv_sec >= REALTIME_SECONDS_MIN) add(&moved, -steps->realtime);
    return moved;
}

int pthread_cond_timedwait(pthread_cond_t *restrict condition, pthread_mutex_t *restrict mutex,
                           const struct timespec *restrict deadline) {
    typedef int wait(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
    static wait *_Atomic found;
    if (!found) {
        /* The oldest version of this symbol has another layout of the condition. */
        wait *versioned = (wait *)dlvsym(RTLD_NEXT, "pthread_cond_timedwait", "GLIBC_2.3.2");
        found = versioned ? versioned : (wait *)dlsym(RTLD_NEXT, "pthread_cond_timedwait");
    }
    struct timespec moved = by_kernel(deadline);
    return found(condition, mutex, &moved);
}

int sem_timedwait(sem_t *restrict semaphore, const struct timespec *restrict deadline) {
    typedef int wait(sem_t *, const struct timespec *);
    static wait *_Atomic found;
    if (!found) found = (wait *)dlsym(RTLD_NEXT, "sem_timedwait");
    struct timespec moved = by_kernel(deadline);
    return found(semaphore, &moved);
}
