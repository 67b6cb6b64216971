/* The cheapest upstream that keeps connections: answers every request with the same 1 KB. It looks
   for the end of a head and for Content-Length, and trusts its callers in everything else.
   usage: upstream PORT [BODY_BYTES] */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

struct connection { int fd; size_t have; long body; char head[16 * 1024]; };

static char *answer;
static size_t answerBytes;

static void take(struct connection *c) {
    for (;;) {
        ssize_t count = recv(c->fd, c->head + c->have, sizeof c->head - 1 - c->have, 0);
        if (count == 0 || (count < 0 && errno != EAGAIN)) { close(c->fd); free(c); return; }
        if (count < 0) return;
        c->have += (size_t)count;
        for (;;) {
            if (c->body > 0) {
                size_t skip = c->have < (size_t)c->body ? c->have : (size_t)c->body;
                memmove(c->head, c->head + skip, c->have - skip);
                c->have -= skip;
                c->body -= (long)skip;
                if (c->body > 0) break;
                send(c->fd, answer, answerBytes, MSG_NOSIGNAL);
                continue;
            }
            c->head[c->have] = 0;
            char *end = strstr(c->head, "\r\n\r\n");
            if (!end) break;
            size_t headBytes = (size_t)(end - c->head) + 4;
            *end = 0;
            char *length = strcasestr(c->head, "\ncontent-length:");
            c->body = length ? atol(length + 16) : 0;
            memmove(c->head, c->head + headBytes, c->have - headBytes);
            c->have -= headBytes;
            if (c->body == 0) send(c->fd, answer, answerBytes, MSG_NOSIGNAL);
        }
    }
}

int main(int argc, char **argv) {
    if (argc < 2) return fprintf(stderr, "usage: upstream PORT [BODY_BYTES]\n"), 64;
    size_t body = argc > 2 ? (size_t)atol(argv[2]) : 1024;
    answer = malloc(body + 256);
    int head = sprintf(answer,
        "HTTP/1.1 200 OK\r\nServer: upstream\r\nContent-Type: application/json\r\n"
        "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: %zu\r\n\r\n", body);
    memset(answer + head, 'x', body);
    answerBytes = (size_t)head + body;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in own = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[1]))};
    own.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(listener, (struct sockaddr *)&own, sizeof own) || listen(listener, 1024)) return perror("listen"), 1;
    int poll = epoll_create1(0);
    struct epoll_event first = {.events = EPOLLIN, .data.ptr = NULL}, events[256];
    epoll_ctl(poll, EPOLL_CTL_ADD, listener, &first);
    for (;;) {
        int count = epoll_wait(poll, events, 256, -1);
        for (int i = 0; i < count; i++) {
            if (events[i].data.ptr) { take(events[i].data.ptr); continue; }
            int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
            if (fd < 0) continue;
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
            struct connection *c = calloc(1, sizeof *c);
            c->fd = fd;
            struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
            epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event);
        }
    }
}
