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

#endif
