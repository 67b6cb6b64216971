/* A byte relay that parses nothing: the least that any proxy on this machine can cost. One thread,
   edge-triggered epoll, one upstream connection for each downstream connection.
   usage: relay LISTEN_PORT UPSTREAM_PORT */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { bufferBytes = 64 * 1024, eventsMax = 256 };

struct side {
    int fd;
    struct side *other;
    char *waiting; /* what the socket did not take */
    size_t start, end;
    int readable, closed;
};

static char scratch[bufferBytes];

static struct sockaddr_in loopback(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

static void shut(struct side *side) {
    struct side *pair[2] = {side, side->other};
    for (int i = 0; i < 2; i++) {
        if (pair[i]->closed) continue;
        pair[i]->closed = 1;
        close(pair[i]->fd);
        free(pair[i]->waiting);
        pair[i]->waiting = NULL;
    }
}

/* From one side to the other until there is no more, or the other is full. */
static void pump(struct side *from) {
    struct side *to = from->other;
    while (from->readable && !to->waiting && !from->closed) {
        ssize_t count = recv(from->fd, scratch, bufferBytes, 0);
        if (count == 0 || (count < 0 && errno != EAGAIN)) return shut(from);
        if (count < 0) { from->readable = 0; return; }
        if (count < bufferBytes) from->readable = 0;
        ssize_t sent = send(to->fd, scratch, (size_t)count, MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN) return shut(from);
        if (sent < 0) sent = 0;
        if (sent < count) {
            to->waiting = malloc((size_t)(count - sent));
            __builtin_memcpy(to->waiting, scratch + sent, (size_t)(count - sent));
            to->start = 0;
            to->end = (size_t)(count - sent);
        }
    }
}

static void drain(struct side *side) {
    if (!side->waiting) return;
    ssize_t sent = send(side->fd, side->waiting + side->start, side->end - side->start, MSG_NOSIGNAL);
    if (sent < 0) { if (errno != EAGAIN) shut(side); return; }
    side->start += (size_t)sent;
    if (side->start < side->end) return;
    free(side->waiting);
    side->waiting = NULL;
    pump(side->other);
}

static struct side *watch(int poll, int fd) {
    struct side *side = calloc(1, sizeof *side);
    side->fd = fd;
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET};
    event.data.ptr = side;
    epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event);
    return side;
}

int main(int argc, char **argv) {
    if (argc != 3) return fprintf(stderr, "usage: relay LISTEN_PORT UPSTREAM_PORT\n"), 64;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in own = loopback(atoi(argv[1])), upstream = loopback(atoi(argv[2]));
    if (bind(listener, (struct sockaddr *)&own, sizeof own) || listen(listener, 1024)) return perror("listen"), 1;
    int poll = epoll_create1(0);
    struct epoll_event first = {.events = EPOLLIN, .data.ptr = NULL}, events[eventsMax];
    epoll_ctl(poll, EPOLL_CTL_ADD, listener, &first);
    for (;;) {
        int count = epoll_wait(poll, events, eventsMax, -1);
        for (int i = 0; i < count; i++) {
            struct side *side = events[i].data.ptr;
            if (!side) {
                int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
                if (fd < 0) continue;
                int up = socket(AF_INET, SOCK_STREAM, 0);
                if (connect(up, (struct sockaddr *)&upstream, sizeof upstream)) { close(fd); close(up); continue; }
                int flags = 1;
                extern int ioctl(int, unsigned long, ...);
                ioctl(up, 0x5421 /* FIONBIO */, &flags);
                struct side *down = watch(poll, fd), *other = watch(poll, up);
                down->other = other;
                other->other = down;
                continue;
            }
            if (side->closed) continue;
            if (events[i].events & EPOLLOUT) drain(side);
            if (events[i].events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) {
                side->readable = 1;
                pump(side);
            }
        }
    }
}
