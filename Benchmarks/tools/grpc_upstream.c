/* An HTTP/2 upstream for the gRPC workload: every call is answered with one message of 128 bytes
   and trailers that say grpc-status 0, as soon as the caller's side is closed.
   usage: grpc_upstream PORT      build: cc grpc_upstream.c -lnghttp2 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <nghttp2/nghttp2.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { message_bytes = 128, frame_bytes = message_bytes + 5, buffer_bytes = 64 * 1024 };

struct connection {
    int fd;
    nghttp2_session *session;
    uint8_t *kept; /* what the socket did not take */
    const uint8_t *rest;
    size_t rest_bytes;
};

static uint8_t message[frame_bytes] = {0, 0, 0, 0, message_bytes};

#define FIELD(n, v) {(uint8_t *)n, (uint8_t *)v, sizeof n - 1, sizeof v - 1, NGHTTP2_NV_FLAG_NONE}

static ssize_t body(nghttp2_session *session, int32_t stream, uint8_t *buffer, size_t length,
    uint32_t *flags, nghttp2_data_source *source, void *user) {
    (void)source;
    (void)user;
    /* The smallest window that anybody offers takes the message whole. */
    if (length < frame_bytes) return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    memcpy(buffer, message, frame_bytes);
    *flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
    nghttp2_nv trailers[] = {FIELD("grpc-status", "0")};
    nghttp2_submit_trailer(session, stream, trailers, 1);
    return frame_bytes;
}

static int received(nghttp2_session *session, const nghttp2_frame *frame, void *user) {
    (void)user;
    int is_request = frame->hd.type == NGHTTP2_HEADERS || frame->hd.type == NGHTTP2_DATA;
    if (!is_request || !(frame->hd.flags & NGHTTP2_FLAG_END_STREAM)) return 0;
    nghttp2_nv head[] = {FIELD(":status", "200"), FIELD("content-type", "application/grpc")};
    nghttp2_data_provider provider = {.read_callback = body};
    return nghttp2_submit_response(session, frame->hd.stream_id, head, 2, &provider);
}

/* 0: the connection is over. */
static int flush(struct connection *c) {
    for (;;) {
        while (c->rest_bytes) {
            ssize_t sent = send(c->fd, c->rest, c->rest_bytes, MSG_NOSIGNAL);
            if (sent < 0) return errno == EAGAIN;
            c->rest += sent;
            c->rest_bytes -= (size_t)sent;
        }
        /* nghttp2 hands out a frame at a time; they leave together. */
        static uint8_t out[buffer_bytes];
        size_t have = 0;
        const uint8_t *frame;
        ssize_t size = 0;
        while (have < buffer_bytes / 2 && (size = nghttp2_session_mem_send(c->session, &frame)) > 0) {
            memcpy(out + have, frame, (size_t)size);
            have += (size_t)size;
        }
        if (size < 0) return 0;
        if (!have) return nghttp2_session_want_read(c->session) || nghttp2_session_want_write(c->session);
        ssize_t sent = send(c->fd, out, have, MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN) return 0;
        size_t taken = sent < 0 ? 0 : (size_t)sent;
        if (taken < have) {
            c->kept = realloc(c->kept, have - taken);
            memcpy(c->kept, out + taken, have - taken);
            c->rest = c->kept;
            c->rest_bytes = have - taken;
            return 1;
        }
    }
}

static int take(struct connection *c) {
    static uint8_t in[buffer_bytes];
    for (;;) {
        ssize_t count = recv(c->fd, in, sizeof in, 0);
        if (count == 0 || (count < 0 && errno != EAGAIN)) return 0;
        if (count < 0) return flush(c);
        if (nghttp2_session_mem_recv(c->session, in, (size_t)count) < 0) return 0;
    }
}

int main(int argc, char **argv) {
    if (argc != 2) return fprintf(stderr, "usage: grpc_upstream PORT\n"), 64;
    memset(message + 5, 'x', message_bytes);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in own = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[1]))};
    own.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(listener, (struct sockaddr *)&own, sizeof own) || listen(listener, 4096)) return perror("listen"), 1;
    nghttp2_session_callbacks *callbacks;
    nghttp2_session_callbacks_new(&callbacks);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, received);
    nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, 1024}, {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 1 << 20}};
    int poll = epoll_create1(0);
    struct epoll_event first = {.events = EPOLLIN, .data.ptr = NULL}, events[256];
    epoll_ctl(poll, EPOLL_CTL_ADD, listener, &first);
    for (;;) {
        int count = epoll_wait(poll, events, 256, -1);
        for (int i = 0; i < count; i++) {
            struct connection *c = events[i].data.ptr;
            if (!c) {
                int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
                if (fd < 0) continue;
                setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                c = calloc(1, sizeof *c);
                c->fd = fd;
                nghttp2_session_server_new(&c->session, callbacks, c);
                nghttp2_submit_settings(c->session, NGHTTP2_FLAG_NONE, settings, 2);
                nghttp2_session_set_local_window_size(c->session, NGHTTP2_FLAG_NONE, 0, 1 << 24);
                struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = c};
                epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event);
                continue;
            }
            if (!take(c)) {
                nghttp2_session_del(c->session);
                close(c->fd);
                free(c->kept);
                free(c);
            }
        }
    }
}
