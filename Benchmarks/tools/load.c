/* A load generator for what wrk and h2load cannot do: an open loop, timed from the intended send;
   client certificates; a TLS handshake for each request. HTTP/1.1, one thread. It trusts servers to
   answer with Content-Length.

   usage: load closed|open|handshakes HOST PORT REQUEST_FILE CONNECTIONS SECONDS [RATE]
   environment: LOAD_TLS=1, LOAD_CERTIFICATE and LOAD_KEY (PEM files), LOAD_NAME (server name)

   closed:     each connection asks again as soon as it has its answer
   open:       RATE requests a second, each due at its own time; one that finds no idle connection
               waits for one, and the wait counts
   handshakes: as closed, with a new connection for each request

   Prints: requests R errors E seconds S median_us … p90_us … p99_us … max_us …
   build: cc load.c -lssl -lcrypto */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { input_bytes = 16 * 1024, connections_max = 4096, samples_max = 8 * 1000 * 1000 };
enum state { connecting, shaking, idle, sending, receiving };

struct connection {
    int fd;
    enum state state;
    SSL *tls;
    size_t sent, have;
    long body_left; /* below 0: in the head */
    uint64_t due;
    char input[input_bytes + 1];
};

static struct connection *connections;
static SSL_CTX *context;
static struct sockaddr_in server;
static char *request;
static size_t request_bytes;
static int poller, reconnects, is_open;
static long connection_count, requests, errors;
static uint32_t *samples;
static uint64_t ends;
/* Due and not yet sent, in the order of their times: of an open loop. */
static uint64_t first_due, interval, next_due_index, sent_due_index;

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void dial(struct connection *c) {
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    int one = 1;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(c->fd, (struct sockaddr *)&server, sizeof server) && errno != EINPROGRESS) fail("connect");
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = c};
    epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &event);
    c->state = connecting;
    c->have = 0;
}

static void hang_up(struct connection *c) {
    if (c->tls) {
        SSL_shutdown(c->tls);
        SSL_free(c->tls);
        c->tls = NULL;
    }
    close(c->fd);
}

static void redial(struct connection *c) {
    hang_up(c);
    dial(c);
}

/* Bytes moved; 0: not now; -1: the connection is of no use any more. */
static ssize_t move(struct connection *c, int sends, char *bytes, size_t size) {
    ERR_clear_error();
    ssize_t count = c->tls ? (sends ? SSL_write(c->tls, bytes, (int)size) : SSL_read(c->tls, bytes, (int)size))
                           : (sends ? send(c->fd, bytes, size, MSG_NOSIGNAL) : recv(c->fd, bytes, size, 0));
    if (count > 0) return count;
    if (!c->tls) return count < 0 && errno == EAGAIN ? 0 : -1;
    int why = SSL_get_error(c->tls, (int)count);
    return why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE ? 0 : -1;
}

static void broken(struct connection *c) {
    errors++;
    /* A server that refuses everybody must not keep this busy for ever. */
    if (errors > 10000) fprintf(stderr, "too many errors\n"), exit(1);
    redial(c);
}

static void begin(struct connection *c, uint64_t due) {
    c->due = due;
    c->sent = 0;
    c->have = 0;
    c->body_left = -1;
    c->state = sending;
}

/* What an idle connection does next; 0: nothing. */
static int next(struct connection *c) {
    uint64_t now = now_ns();
    if (!is_open) return now < ends ? (begin(c, now), 1) : 0;
    if (sent_due_index == next_due_index) return 0;
    begin(c, first_due + sent_due_index++ * interval);
    return 1;
}

static void answered(struct connection *c) {
    uint64_t us = (now_ns() - c->due) / 1000;
    if (requests < samples_max) samples[requests] = us > UINT32_MAX ? UINT32_MAX : (uint32_t)us;
    requests++;
    c->state = idle;
    if (reconnects) redial(c);
}

/* 1: the answer is whole; 0: more is to come; -1: it is no 200. */
static int read_head(struct connection *c) {
    c->input[c->have] = 0;
    char *end = strstr(c->input, "\r\n\r\n");
    if (!end) return c->have == input_bytes ? -1 : 0;
    *end = 0;
    char *length = strcasestr(c->input, "\ncontent-length:");
    if (strncmp(c->input, "HTTP/1.1 200", 12) || !length) return -1;
    c->body_left = atol(length + 16) - (long)(c->have - ((size_t)(end - c->input) + 4));
    c->have = 0;
    return c->body_left == 0;
}

static int receive(struct connection *c) {
    for (;;) {
        size_t at = c->body_left < 0 ? c->have : 0;
        ssize_t count = move(c, 0, c->input + at, input_bytes - at);
        if (count <= 0) return (int)count;
        if (c->body_left < 0) {
            c->have += (size_t)count;
            int done = read_head(c);
            if (done) return done;
        } else if ((c->body_left -= count) == 0) {
            return 1;
        }
    }
}

static int established(struct connection *c) {
    if (c->state == connecting) {
        int problem = 0;
        socklen_t size = sizeof problem;
        getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &problem, &size);
        struct sockaddr_in peer;
        socklen_t peer_size = sizeof peer;
        if (problem) return -1;
        if (getpeername(c->fd, (struct sockaddr *)&peer, &peer_size)) return 0;
        c->state = context ? shaking : idle;
        if (context) {
            c->tls = SSL_new(context);
            SSL_set_fd(c->tls, c->fd);
            SSL_set_tlsext_host_name(c->tls, getenv("LOAD_NAME") ? getenv("LOAD_NAME") : "agent.local");
            SSL_set_connect_state(c->tls);
        }
    }
    if (c->state != shaking) return 1;
    ERR_clear_error();
    int done = SSL_do_handshake(c->tls);
    if (done == 1) return c->state = idle, 1;
    int why = SSL_get_error(c->tls, done);
    return why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE ? 0 : -1;
}

static void drive(struct connection *c) {
    if (c->state <= shaking) {
        int done = established(c);
        if (done < 0) return broken(c);
        if (done == 0) return;
    }
    for (;;) {
        if (c->state <= shaking || (c->state == idle && !next(c))) return;
        while (c->state == sending) {
            ssize_t count = move(c, 1, request + c->sent, request_bytes - c->sent);
            if (count < 0) return broken(c);
            if (count == 0) return;
            if ((c->sent += (size_t)count) == request_bytes) c->state = receiving;
        }
        int done = receive(c);
        if (done < 0) return broken(c);
        if (done == 0) return;
        answered(c);
    }
}

static void became_due(void) {
    uint64_t now = now_ns();
    while (first_due + next_due_index * interval <= now && now < ends) next_due_index++;
    for (long i = 0; i < connection_count && sent_due_index < next_due_index; i++)
        if (connections[i].state == idle) drive(&connections[i]);
}

static void read_request(const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file) fail(path);
    fseek(file, 0, SEEK_END);
    request_bytes = (size_t)ftell(file);
    rewind(file);
    request = malloc(request_bytes);
    if (fread(request, 1, request_bytes, file) != request_bytes) fail(path);
    fclose(file);
}

static void prepare_tls(void) {
    if (!getenv("LOAD_TLS")) return;
    context = SSL_CTX_new(TLS_client_method());
    /* Whole handshakes are what is measured. */
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    const char *certificate = getenv("LOAD_CERTIFICATE"), *key = getenv("LOAD_KEY");
    if (!certificate) return;
    if (SSL_CTX_use_certificate_chain_file(context, certificate) != 1
        || SSL_CTX_use_PrivateKey_file(context, key, SSL_FILETYPE_PEM) != 1) {
        ERR_print_errors_fp(stderr);
        exit(1);
    }
}

static int ascending(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static uint32_t at(double part) {
    long count = requests < samples_max ? requests : samples_max;
    return count ? samples[(long)(part * (double)(count - 1))] : 0;
}

int main(int argc, char **argv) {
    if (argc < 7) return fprintf(stderr, "usage: load closed|open|handshakes HOST PORT REQUEST_FILE CONNECTIONS SECONDS [RATE]\n"), 64;
    is_open = !strcmp(argv[1], "open");
    reconnects = !strcmp(argv[1], "handshakes");
    server.sin_family = AF_INET;
    server.sin_port = htons((uint16_t)atoi(argv[3]));
    if (inet_pton(AF_INET, argv[2], &server.sin_addr) != 1) return fprintf(stderr, "no address: %s\n", argv[2]), 64;
    read_request(argv[4]);
    connection_count = atol(argv[5]);
    if (connection_count < 1 || connection_count > connections_max) return 64;
    prepare_tls();
    samples = malloc(samples_max * sizeof *samples);
    connections = calloc((size_t)connection_count, sizeof *connections);
    poller = epoll_create1(0);
    uint64_t started = now_ns();
    ends = started + (uint64_t)(atof(argv[6]) * 1e9);
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    if (is_open) {
        interval = (uint64_t)(1e9 / atof(argc > 7 ? argv[7] : "1000"));
        first_due = started + 50 * 1000 * 1000; /* connections are made first */
        struct itimerspec every = {{0, (long)interval}, {0, 50 * 1000 * 1000}};
        timerfd_settime(timer, 0, &every, NULL);
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &timer};
        epoll_ctl(poller, EPOLL_CTL_ADD, timer, &event);
    }
    for (long i = 0; i < connection_count; i++) dial(&connections[i]);
    struct epoll_event events[256];
    /* What an open loop began is waited for, a second at most. */
    while (now_ns() < ends || (is_open && requests < (long)next_due_index && now_ns() < ends + 1000000000u)) {
        int count = epoll_wait(poller, events, 256, 20);
        for (int i = 0; i < count; i++) {
            if (events[i].data.ptr != &timer) { drive(events[i].data.ptr); continue; }
            uint64_t expirations;
            if (read(timer, &expirations, sizeof expirations) > 0) became_due();
        }
    }
    double seconds = (double)(now_ns() - started) / 1e9;
    if (is_open) errors += (long)next_due_index - requests;
    qsort(samples, (size_t)(requests < samples_max ? requests : samples_max), sizeof *samples, ascending);
    printf("requests %ld errors %ld seconds %.3f median_us %u p90_us %u p99_us %u max_us %u\n",
        requests, errors, seconds, at(0.5), at(0.9), at(0.99), at(1));
    return 0;
}
