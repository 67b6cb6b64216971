#define _GNU_SOURCE
#include "CLinux.h"

#include <pthread.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

int weir_accept4(int listener, struct sockaddr *address, socklen_t *length, int flags) {
    return accept4(listener, address, length, flags);
}

uintptr_t weir_thread_identity(void) { return (uintptr_t)pthread_self(); }

void weir_name_thread(const char *name) { pthread_setname_np(pthread_self(), name); }

uint64_t weir_monotonic_nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

int weir_signal_descriptor(const int *signals) {
    sigset_t set;
    sigemptyset(&set);
    for (; *signals != 0; signals++) sigaddset(&set, *signals);
    if (pthread_sigmask(SIG_BLOCK, &set, NULL) != 0) return -1;
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

void weir_ignore_sigpipe(void) { signal(SIGPIPE, SIG_IGN); }

char **weir_environment(void) { return environ; }
