/* The far end: takes what the measured server relays and notes each unit's delay, from its marker's moment to its last byte.
 *
 *   sink rtmp
 *   sink backbone DIRECTORY [tls]
 *
 * DIRECTORY holds the frames that servers.py made for sink_backbone.c, and ca.pem, sink.pem and sink.key for TLS.
 * One thread, one epoll. stdout: {"port": ...} at start; then, on "report", one line. */
#define _GNU_SOURCE
#include "sink.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>
#ifdef WITH_TLS
#include <openssl/err.h>
#include <openssl/ssl.h>
#endif

#define RECEIVE_BYTES (256 * 1024)
#define SOCKET_BYTES (16 * 1024 * 1024) /* The generator's turn on our core must not stop the relay by a full window. */

static struct window window;
static struct histogram delay, quarter_delay[QUARTERS];
static uint64_t units[STREAMS_MAX], next_unit[STREAMS_MAX], disordered, unmarked;
static uint32_t streams_seen;
static int poll_fd;

void unit_received(const uint8_t *tail, uint64_t now) {
    struct marker marker;
    if (tail == NULL || !marker_read(tail, &marker)) {
        unmarked++; /* Sequence headers. */
        return;
    }
    if (marker.stream >= streams_seen)
        streams_seen = marker.stream + 1;
    if (!window_has(&window, marker.sent_ns))
        return;
    disordered += marker.unit < next_unit[marker.stream];
    next_unit[marker.stream] = marker.unit + 1;
    units[marker.stream]++;
    uint64_t us = now > marker.sent_ns ? (now - marker.sent_ns) / 1000 : 0;
    histogram_add(&delay, us);
    histogram_add(&quarter_delay[(marker.sent_ns - window.begin_ns) * QUARTERS / (window.end_ns - window.begin_ns)], us);
}

static void report(void) {
    printf("{\"units\": [");
    for (uint32_t i = 0; i < streams_seen; i++)
        printf("%s%llu", i ? ", " : "", (unsigned long long)units[i]);
    printf("], \"disordered\": %llu, \"unmarked\": %llu, ", (unsigned long long)disordered, (unsigned long long)unmarked);
    histogram_print("delay_us", &delay);
    for (int i = 0; i < QUARTERS; i++) {
        char key[32];
        snprintf(key, sizeof key, "quarter_%d_us", i + 1);
        printf(", ");
        histogram_print(key, &quarter_delay[i]);
    }
    printf("}\n");
}

static const struct protocol *protocol;
static uint8_t data[RECEIVE_BYTES];

static void watch(int fd, void *what) {
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = what};
    if (epoll_ctl(poll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
        fail("epoll_ctl: %s", strerror(errno));
}

static void close_peer(struct peer *peer);

#ifdef WITH_TLS
static SSL_CTX *tls;

static void load_tls(const char *directory) {
    char ca[4096], certificate[4096], key[4096];
    snprintf(ca, sizeof ca, "%s/ca.pem", directory);
    snprintf(certificate, sizeof certificate, "%s/sink.pem", directory);
    snprintf(key, sizeof key, "%s/sink.key", directory);
    tls = SSL_CTX_new(TLS_server_method());
    SSL_CTX_set_min_proto_version(tls, TLS1_3_VERSION);
    SSL_CTX_set_num_tickets(tls, 0);
    SSL_CTX_set_mode(tls, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_AUTO_RETRY);
    SSL_CTX_set_verify(tls, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    SSL_CTX_set_read_ahead(tls, 1); /* One recv() for several records. */
    if (SSL_CTX_load_verify_locations(tls, ca, NULL) != 1 || SSL_CTX_use_certificate_chain_file(tls, certificate) != 1 ||
        SSL_CTX_use_PrivateKey_file(tls, key, SSL_FILETYPE_PEM) != 1)
        fail("tls: %s", ERR_reason_error_string(ERR_get_error()));
}

static void start_tls(struct peer *peer) {
    if (tls == NULL)
        return;
    SSL *ssl = SSL_new(tls);
    if (ssl == NULL || SSL_set_fd(ssl, peer->fd) != 1)
        fail("tls: %s", ERR_reason_error_string(ERR_get_error()));
    SSL_set_accept_state(ssl);
    SSL_set_default_read_buffer_len(ssl, 128 * 1024);
    peer->ssl = ssl;
}

static void read_tls(struct peer *peer) {
    for (;;) {
        ERR_clear_error();
        int n = SSL_read(peer->ssl, data, sizeof data);
        if (n <= 0) {
            int error = SSL_get_error(peer->ssl, n);
            if (error == SSL_ERROR_WANT_READ)
                return;
            if (error == SSL_ERROR_SSL)
                fprintf(stderr, "tls: %s\n", ERR_reason_error_string(ERR_get_error()));
            close_peer(peer);
            return;
        }
        protocol->received(peer, data, (size_t)n, now_ns());
    }
}
#else
static void load_tls(const char *directory) { fail("compiled without OpenSSL, cannot serve TLS for %s", directory); }
static void start_tls(struct peer *peer) { (void)peer; }
static void read_tls(struct peer *peer) { (void)peer; }
#endif

void peer_send(struct peer *peer, const void *bytes, size_t n) {
    ssize_t sent;
#ifdef WITH_TLS
    if (peer->ssl != NULL)
        sent = SSL_write(peer->ssl, bytes, (int)n);
    else
#endif
        sent = send(peer->fd, bytes, n, MSG_NOSIGNAL);
    if (sent != (ssize_t)n && errno != EPIPE && errno != ECONNRESET) /* A peer that left is noticed by reading. */
        fail("the relay does not take replies: %s", strerror(errno));
}

static void close_peer(struct peer *peer) {
#ifdef WITH_TLS
    SSL_free(peer->ssl);
#endif
    close(peer->fd);
    protocol->closed(peer);
}

static void read_peer(struct peer *peer) {
    if (peer->ssl != NULL) {
        read_tls(peer);
        return;
    }
    ssize_t n = recv(peer->fd, data, sizeof data, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n > 0)
        protocol->received(peer, data, (size_t)n, now_ns());
    else
        close_peer(peer);
}

static void accept_peers(int listener) {
    int fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct peer *peer = protocol->opened();
        peer->fd = fd;
        no_delay(fd);
        start_tls(peer);
        watch(fd, peer);
    }
}

static int listen_on_loopback(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &(int){SOCKET_BYTES}, sizeof(int)) < 0)
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &(int){SOCKET_BYTES}, sizeof(int)); /* As much as we may. */
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, 1024) < 0 ||
        getsockname(fd, (struct sockaddr *)&address, &length) < 0)
        fail("listen: %s", strerror(errno));
    printf("{\"port\": %u}\n", ntohs(address.sin_port));
    return fd;
}

static int start_timer(void) {
    struct itimerspec every = {{0, TIMER_NS}, {0, TIMER_NS}};
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (fd < 0 || timerfd_settime(fd, 0, &every, NULL) < 0)
        fail("timer: %s", strerror(errno));
    return fd;
}

static void choose_protocol(int argc, char **argv) {
    if (argc == 2 && strcmp(argv[1], "rtmp") == 0)
        protocol = &rtmp_protocol;
    else if (argc >= 3 && strcmp(argv[1], "backbone") == 0) {
        protocol = &backbone_protocol;
        backbone_load(argv[2]);
        if (argc == 4 && strcmp(argv[3], "tls") == 0)
            load_tls(argv[2]);
    } else
        fail("usage: sink rtmp | sink backbone DIRECTORY [tls]");
}

int main(int argc, char **argv) {
    begin_program(-15); /* Before the generator: a delay here is to be the relay's. */
    choose_protocol(argc, argv);
    poll_fd = epoll_create1(EPOLL_CLOEXEC);
    int timer = start_timer(), listener = listen_on_loopback();
    watch(timer, &timer);
    watch(listener, &listener);
    watch(0, &window);
    for (;;) {
        struct epoll_event events[256];
        int count = epoll_wait(poll_fd, events, 256, -1);
        for (int i = 0; i < count; i++) {
            uint64_t ticks;
            if (events[i].data.ptr == &listener)
                accept_peers(listener);
            else if (events[i].data.ptr == &window)
                obey_stdin(&window, report);
            else if (events[i].data.ptr != &timer)
                read_peer(events[i].data.ptr);
            else if (read(timer, &ticks, sizeof ticks) > 0 && protocol->timer != NULL)
                protocol->timer(now_ns());
        }
    }
}
