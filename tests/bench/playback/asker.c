/* The load: COUNT connections in one thread, each of which asks again as soon as it is answered.

   asker PORT COUNT STREAMS SECONDS PROTOCOL TARGET: PROTOCOL is "h1", "h1s" (TLS 1.3) or "h2" (TLS
   1.3, STREAMS requests at a time on each connection). No two requests of a run are alike: they end
   in "?n=" and a number. Prints {} when all are connected, and asks at the first line on stdin; then
   prints {"requests": N, "body_bytes": B}, or at any time {"error": "..."}. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <nghttp2/nghttp2.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { HEAD_BYTES = 8192, COUNT_MAX = 4096 };
static const int STREAM_WINDOW = 6 << 20, CONNECTION_WINDOW = 15 << 20; /* As Chromium's. */

struct viewer {
    int fd;
    SSL *ssl;
    nghttp2_session *h2;
    char head[HEAD_BYTES + 1];
    size_t head_bytes;
    long body_left; /* -1: the head is not whole yet. */
};

static unsigned long long requests, body_bytes, asked;
static char *target;

static void fail(const char *what)
{
    printf("{\"error\": \"%s\"}\n", what);
    exit(1);
}

static double now_s(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec + at.tv_nsec / 1e9;
}

static void give(struct viewer *viewer, const void *data, size_t size)
{
    long n = viewer->ssl ? SSL_write(viewer->ssl, data, (int)size)
                         : send(viewer->fd, data, size, MSG_NOSIGNAL);
    if (n != (long)size) fail("a request was not taken whole");
}

/* Bytes, 0 when there are none now. */
static size_t take(struct viewer *viewer, void *data, size_t size)
{
    long n;
    if (viewer->ssl) {
        n = SSL_read(viewer->ssl, data, (int)size);
        if (n > 0) return n;
        if (SSL_get_error(viewer->ssl, (int)n) == SSL_ERROR_WANT_READ) return 0;
    } else {
        n = recv(viewer->fd, data, size, 0);
        if (n > 0) return n;
        if (n < 0 && errno == EAGAIN) return 0;
    }
    fail("the server hung up");
    return 0;
}

static void ask_h1(struct viewer *viewer)
{
    char request[1024];
    int size = snprintf(request, sizeof request,
                        "GET %s?n=%llu HTTP/1.1\r\nHost: bench\r\nUser-Agent: bench\r\n"
                        "Accept: */*\r\n\r\n", target, asked++);
    viewer->body_left = -1;
    viewer->head_bytes = 0;
    give(viewer, request, size);
}

static void answered(struct viewer *viewer)
{
    requests++;
    ask_h1(viewer);
}

static void read_h1(struct viewer *viewer, const char *data, size_t size)
{
    while (size) {
        if (viewer->body_left < 0) {
            size_t room = HEAD_BYTES - viewer->head_bytes, part = size < room ? size : room;
            size_t before = viewer->head_bytes;
            memcpy(viewer->head + before, data, part);
            viewer->head[viewer->head_bytes += part] = 0;
            char *end = strstr(viewer->head, "\r\n\r\n");
            if (!end) {
                if (part == room) fail("a head is too long");
                return;
            }
            char *length = strcasestr(viewer->head, "\r\ncontent-length:");
            if (strncmp(viewer->head, "HTTP/1.1 200", 12) || !length || length > end)
                fail("an answer is not 200 with its length");
            viewer->body_left = atol(length + 17);
            size_t used = end + 4 - viewer->head - before;
            data += used;
            size -= used;
        }
        size_t part = size < (size_t)viewer->body_left ? size : (size_t)viewer->body_left;
        viewer->body_left -= part;
        body_bytes += part;
        data += part;
        size -= part;
        if (!viewer->body_left) {
            if (size) fail("more than the answer has come");
            answered(viewer);
        }
    }
}

#define FIELD(NAME, VALUE, SIZE) \
    {(uint8_t *)NAME, (uint8_t *)VALUE, sizeof NAME - 1, SIZE, NGHTTP2_NV_FLAG_NONE}

static void ask_h2(struct viewer *viewer)
{
    char path[1024];
    int size = snprintf(path, sizeof path, "%s?n=%llu", target, asked++);
    nghttp2_nv fields[] = {FIELD(":method", "GET", 3), FIELD(":scheme", "https", 5),
                           FIELD(":authority", "bench", 5), FIELD(":path", path, size),
                           FIELD("user-agent", "bench", 5), FIELD("accept", "*/*", 3)};
    if (nghttp2_submit_request(viewer->h2, NULL, fields, 6, NULL, NULL) < 0)
        fail("a request could not be made");
}

static int on_header(nghttp2_session *h2, const nghttp2_frame *frame, const uint8_t *name,
                     size_t name_bytes, const uint8_t *value, size_t size, uint8_t flags, void *to)
{
    (void)h2, (void)frame, (void)flags, (void)to;
    if (name_bytes == 7 && !memcmp(name, ":status", 7) && (size != 3 || memcmp(value, "200", 3)))
        fail("an answer is not 200");
    return 0;
}

static int on_data(nghttp2_session *h2, uint8_t flags, int32_t id, const uint8_t *data, size_t size,
                   void *to)
{
    (void)h2, (void)flags, (void)id, (void)data, (void)to;
    body_bytes += size;
    return 0;
}

static int on_close(nghttp2_session *h2, int32_t id, uint32_t error, void *to)
{
    (void)h2, (void)id;
    if (error) fail("a stream was reset");
    requests++;
    ask_h2(to);
    return 0;
}

static void flush_h2(struct viewer *viewer)
{
    const uint8_t *data;
    long size;
    while ((size = nghttp2_session_mem_send(viewer->h2, &data)) > 0) give(viewer, data, size);
    if (size < 0) fail("nghttp2 cannot send");
}

static void begin_h2(struct viewer *viewer, int streams)
{
    nghttp2_session_callbacks *calls;
    nghttp2_session_callbacks_new(&calls);
    nghttp2_session_callbacks_set_on_header_callback(calls, on_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(calls, on_data);
    nghttp2_session_callbacks_set_on_stream_close_callback(calls, on_close);
    nghttp2_session_client_new(&viewer->h2, calls, viewer);
    nghttp2_session_callbacks_del(calls);
    nghttp2_settings_entry settings[] = {{NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
                                         {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, STREAM_WINDOW}};
    nghttp2_submit_settings(viewer->h2, NGHTTP2_FLAG_NONE, settings, 2);
    nghttp2_session_set_local_window_size(viewer->h2, NGHTTP2_FLAG_NONE, 0, CONNECTION_WINDOW);
    for (int i = 0; i < streams; i++) ask_h2(viewer);
    flush_h2(viewer);
}

static void connect_to(struct viewer *viewer, int port, SSL_CTX *context)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int one = 1;
    viewer->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(viewer->fd, (struct sockaddr *)&at, sizeof at)) fail("cannot connect");
    setsockopt(viewer->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (context) {
        viewer->ssl = SSL_new(context);
        SSL_set_fd(viewer->ssl, viewer->fd);
        if (SSL_connect(viewer->ssl) != 1) fail("the TLS handshake failed");
    }
    fcntl(viewer->fd, F_SETFL, O_NONBLOCK);
}

static void serve(struct viewer *viewer)
{
    static char data[1 << 18];
    size_t size;
    while ((size = take(viewer, data, sizeof data))) {
        if (!viewer->h2)
            read_h1(viewer, data, size);
        else if (nghttp2_session_mem_recv(viewer->h2, (uint8_t *)data, size) < 0)
            fail("what came is not HTTP/2");
        if (!viewer->ssl && size < sizeof data) break;
    }
    if (viewer->h2) flush_h2(viewer);
}

int main(int argc, char **argv)
{
    static struct viewer viewers[COUNT_MAX];
    struct epoll_event ready[512];
    char line[16];
    if (argc != 7) fail("asker PORT COUNT STREAMS SECONDS PROTOCOL TARGET");
    int port = atoi(argv[1]), count = atoi(argv[2]), streams = atoi(argv[3]);
    double seconds = atof(argv[4]);
    int is_h2 = !strcmp(argv[5], "h2"), epoll = epoll_create1(0);
    target = argv[6];
    if (count < 1 || count > COUNT_MAX || strlen(target) > 512) fail("too many, or too long");
    SSL_CTX *context = NULL;
    if (strcmp(argv[5], "h1")) {
        context = SSL_CTX_new(TLS_client_method());
        SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION);
        const char *alpn = is_h2 ? "\x02h2" : "\x08http/1.1";
        SSL_CTX_set_alpn_protos(context, (const unsigned char *)alpn, strlen(alpn));
    }
    for (int i = 0; i < count; i++) {
        connect_to(&viewers[i], port, context);
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &viewers[i]};
        epoll_ctl(epoll, EPOLL_CTL_ADD, viewers[i].fd, &event);
    }
    printf("{}\n");
    fflush(stdout);
    if (!fgets(line, sizeof line, stdin)) return 0;
    for (int i = 0; i < count; i++) {
        if (is_h2)
            begin_h2(&viewers[i], streams);
        else
            ask_h1(&viewers[i]);
    }
    double until = now_s() + seconds;
    while (now_s() < until) {
        int n = epoll_wait(epoll, ready, 512, 100);
        for (int i = 0; i < n; i++) serve(ready[i].data.ptr);
    }
    printf("{\"requests\": %llu, \"body_bytes\": %llu}\n", requests, body_bytes);
    return 0;
}
