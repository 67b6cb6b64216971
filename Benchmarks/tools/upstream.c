/* The cheapest upstream that keeps connections. It looks for the end of a head, for Content-Length
   and for the first letters of the target, and trusts its callers in everything else.

     /bytes/N               N bytes
     /v1/chat/completions   a chat completion of 2 KB with its usage
     Accept: text/event-stream: a stream of EVENTS events, one every TICK ms for all streams at once

   usage: upstream PORT [EVENTS [TICK_MS]] */
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
#include <sys/timerfd.h>
#include <unistd.h>

enum { buffer_bytes = 64 * 1024, answers_max = 16, chat_bytes = 2048 };

struct answer { size_t body, size; char *bytes; };

struct connection {
    int fd, is_stream;
    size_t have;
    long body, events_left;
    const struct answer *answer;
    /* What the socket did not take of an answer. */
    const char *rest;
    size_t rest_bytes;
    struct connection *next;
    char buffer[buffer_bytes + 1];
};

static struct answer answers[answers_max], chat;
static long events_of_stream = 400;
static struct connection *streams;
static char event_chunk[512], last_chunks[512];
static size_t event_bytes, last_bytes;

static const char stream_head[] =
    "HTTP/1.1 200 OK\r\nServer: upstream\r\nContent-Type: text/event-stream\r\n"
    /* The last line is for nginx, which else waits for more. */
    "Cache-Control: no-cache\r\nX-Accel-Buffering: no\r\nTransfer-Encoding: chunked\r\n\r\n";

static void compose(struct answer *answer, const char *body, size_t size) {
    answer->bytes = malloc(size + 256);
    int head = sprintf(answer->bytes,
        "HTTP/1.1 200 OK\r\nServer: upstream\r\nContent-Type: application/json\r\n"
        "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: %zu\r\n\r\n", size);
    if (body) memcpy(answer->bytes + head, body, size);
    else memset(answer->bytes + head, 'x', size);
    answer->body = size;
    answer->size = (size_t)head + size;
}

static const struct answer *answer_of(size_t size) {
    for (int i = 0; i < answers_max; i++) {
        if (answers[i].bytes && answers[i].body == size) return &answers[i];
        if (!answers[i].bytes) return compose(&answers[i], NULL, size), &answers[i];
    }
    return &answers[0];
}

static size_t chunk(char *into, const char *data) {
    return (size_t)sprintf(into, "%zx\r\n%s\r\n", strlen(data), data);
}

static void compose_all(void) {
    static char body[chat_bytes + 1], text[chat_bytes + 1];
    const char *form =
        "{\"id\":\"chatcmpl-9f2\",\"object\":\"chat.completion\",\"created\":1700000000,"
        "\"model\":\"bench-model\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\","
        "\"content\":\"%s\"},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":812,"
        "\"completion_tokens\":397,\"total_tokens\":1209}}";
    size_t words = (size_t)chat_bytes - (size_t)snprintf(NULL, 0, form, "");
    for (size_t i = 0; i < words; i++) text[i] = "revenue grew by twelve; "[i % 24];
    sprintf(body, form, text);
    compose(&chat, body, chat_bytes);
    event_bytes = chunk(event_chunk,
        "data: {\"id\":\"chatcmpl-9f2\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,"
        "\"model\":\"bench-model\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" revenue\"},"
        "\"finish_reason\":null}]}\n\n");
    last_bytes = chunk(last_chunks,
        "data: {\"id\":\"chatcmpl-9f2\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,"
        "\"model\":\"bench-model\",\"choices\":[],\"usage\":{\"prompt_tokens\":812,"
        "\"completion_tokens\":400,\"total_tokens\":1212}}\n\ndata: [DONE]\n\n");
    last_bytes += (size_t)sprintf(last_chunks + last_bytes, "0\r\n\r\n");
}

static void put(struct connection *c, const char *bytes, size_t size) {
    /* A stream whose reader is slow misses what it did not take: nobody here is that slow. */
    ssize_t sent = send(c->fd, bytes, size, MSG_NOSIGNAL);
    if (sent < 0) sent = 0;
    if ((size_t)sent == size || c->is_stream) return;
    c->rest = bytes + sent;
    c->rest_bytes = size - (size_t)sent;
}

static void answer(struct connection *c) {
    if (!c->is_stream) return put(c, c->answer->bytes, c->answer->size);
    put(c, stream_head, sizeof stream_head - 1);
    c->events_left = events_of_stream;
    c->next = streams;
    streams = c;
}

static void leave_streams(struct connection *c) {
    for (struct connection **at = &streams; *at; at = &(*at)->next)
        if (*at == c) { *at = c->next; return; }
}

static void tick(void) {
    for (struct connection **at = &streams; *at;) {
        struct connection *c = *at;
        if (--c->events_left > 0) {
            put(c, event_chunk, event_bytes);
            at = &c->next;
        } else {
            put(c, last_chunks, last_bytes);
            *at = c->next;
        }
    }
}

static void head(struct connection *c) {
    char *target = strchr(c->buffer, ' ');
    target = target ? target + 1 : c->buffer;
    char *length = strcasestr(c->buffer, "\ncontent-length:");
    c->body = length ? atol(length + 16) : 0;
    c->is_stream = strcasestr(c->buffer, "\naccept: text/event-stream") != NULL;
    if (!strncmp(target, "/bytes/", 7)) c->answer = answer_of((size_t)atol(target + 7));
    else c->answer = !strncmp(target, "/v1/chat/", 9) ? &chat : answer_of(1024);
}

static void drop(struct connection *c, size_t count) {
    memmove(c->buffer, c->buffer + count, c->have - count);
    c->have -= count;
}

static void take(struct connection *c) {
    for (;;) {
        ssize_t count = recv(c->fd, c->buffer + c->have, buffer_bytes - c->have, 0);
        if (count == 0 || (count < 0 && errno != EAGAIN)) {
            leave_streams(c);
            close(c->fd);
            free(c);
            return;
        }
        if (count < 0) return;
        c->have += (size_t)count;
        for (;;) {
            if (c->body > 0) {
                size_t skip = c->have < (size_t)c->body ? c->have : (size_t)c->body;
                drop(c, skip);
                c->body -= (long)skip;
                if (c->body > 0) break;
                answer(c);
                continue;
            }
            c->buffer[c->have] = 0;
            char *end = strstr(c->buffer, "\r\n\r\n");
            if (!end) break;
            size_t bytes = (size_t)(end - c->buffer) + 4;
            *end = 0;
            head(c);
            drop(c, bytes);
            if (c->body == 0) answer(c);
        }
    }
}

static void go_on(struct connection *c) {
    if (!c->rest_bytes) return;
    const char *bytes = c->rest;
    size_t size = c->rest_bytes;
    c->rest_bytes = 0;
    put(c, bytes, size);
}

int main(int argc, char **argv) {
    if (argc < 2) return fprintf(stderr, "usage: upstream PORT [EVENTS [TICK_MS]]\n"), 64;
    if (argc > 2) events_of_stream = atol(argv[2]);
    long tick_ms = argc > 3 ? atol(argv[3]) : 5;
    compose_all();
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in own = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[1]))};
    own.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(listener, (struct sockaddr *)&own, sizeof own) || listen(listener, 4096)) return perror("listen"), 1;
    int poll = epoll_create1(0), timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    struct itimerspec every = {{tick_ms / 1000, tick_ms % 1000 * 1000000}, {0, 1}};
    timerfd_settime(timer, 0, &every, NULL);
    struct epoll_event first = {.events = EPOLLIN, .data.ptr = &listener}, events[256];
    epoll_ctl(poll, EPOLL_CTL_ADD, listener, &first);
    struct epoll_event ticks = {.events = EPOLLIN, .data.ptr = &timer};
    epoll_ctl(poll, EPOLL_CTL_ADD, timer, &ticks);
    for (;;) {
        int count = epoll_wait(poll, events, 256, -1);
        for (int i = 0; i < count; i++) {
            void *source = events[i].data.ptr;
            if (source == &timer) {
                uint64_t expirations;
                if (read(timer, &expirations, sizeof expirations) > 0) tick();
            } else if (source == &listener) {
                int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
                if (fd < 0) continue;
                setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                struct connection *c = calloc(1, sizeof *c);
                c->fd = fd;
                struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = c};
                epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event);
            } else {
                if (events[i].events & EPOLLOUT) go_on(source);
                if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) take(source);
            }
        }
    }
}
