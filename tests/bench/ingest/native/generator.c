/* The load: COUNT RTMP publishers in one thread, each sending as a broadcaster's uplink delivers.
 *
 *   generator HOST PORT COUNT DIRECTORY
 *
 * DIRECTORY holds what media.py made:
 *   sessions.bin  for each publisher four blobs (u32 length, bytes): the commands connect, createStream (with releaseStream
 *                 and FCPublish before it) and publish, then the preamble (metadata and sequence headers); all chunked.
 *   pattern.bin   the chunks of PERIOD_NS of media, made so that it can be sent again and again: timestamps are deltas.
 *   markers.bin   u32 offsets in pattern.bin of each unit's marker, ascending.
 *
 * The pattern goes out in pieces of PIECE_BYTES, one send() each, spread evenly over its period. A piece never cuts a marker:
 * it ends before one instead. A unit's marker carries the moment just before the send() of its last piece.
 * stdout: {"ready": ...} when all publish; then, on "report", one line. */
#define _GNU_SOURCE
#include "common.h"

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

#define PIECE_BYTES 1448 /* The payload of a full TCP segment on Ethernet, with timestamps. */
#define PERIOD_NS (8 * NS_PER_S) /* 240 pictures at 30 Hz, 375 AAC frames at 48 kHz: both whole. */
#define TICK_NS 250000ull /* The pacing's resolution: pieces of one publisher are 1.85 ms apart, and a wake-up costs. */
#define OPEN_INTERVAL_NS 10000000ull /* Between two publishers' connects. */
#define GOP_NS (2 * NS_PER_S)
#define PONG_BYTES 18
#define OPEN_DEADLINE_NS (10 * NS_PER_S) /* From connect to Publish.Start. */

enum state { CLOSED, HANDSHAKING, CONNECTING, CREATING, PUBLISHING, LIVE };
enum { BLOB_CONNECT, BLOB_CREATE, BLOB_PUBLISH, BLOB_PREAMBLE, BLOBS };

struct blob {
    const uint8_t *data;
    uint32_t length;
};

struct publisher {
    int fd;
    enum state state;
    uint32_t number, handshake_got;
    uint64_t opened_ns, start_ns;
    uint64_t offset; /* Bytes of media sent, over all periods. */
    uint32_t at; /* offset in the pattern. */
    uint32_t marker; /* Index of the next marker. */
    uint64_t unit;
    uint64_t units_in_window;
    bool pinged;
    uint8_t ping_time[4];
    const uint8_t *piece; /* In the pattern, or `stamped` when it holds markers. */
    uint8_t stamped[PIECE_BYTES + PONG_BYTES];
    uint32_t piece_bytes, piece_left; /* All of it; what send() did not take yet. */
    uint32_t piece_media_bytes; /* How much of it is of the pattern. */
    struct blob blobs[BLOBS];
    struct rtmp_reader reader;
};

static struct publisher *publishers;
static uint64_t *due_ns; /* Of each publisher's next piece; apart from them because each tick reads all. */
static uint32_t publisher_count, opened_count, live_count;
static uint8_t *pattern, *sessions;
static uint32_t pattern_bytes, marker_count;
static uint32_t *markers;
static struct sockaddr_in address;
static struct window window;
static struct histogram late;
static uint64_t pieces_sent, bytes_sent, blocked;
static int poll_fd;

static uint8_t *read_file(const char *directory, const char *name, uint32_t *length) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    FILE *file = fopen(path, "rb");
    if (file == NULL)
        fail("%s: %s", name, strerror(errno));
    fseek(file, 0, SEEK_END);
    long size = ftell(file);
    rewind(file);
    uint8_t *data = malloc((size_t)size + 1);
    if (data == NULL || fread(data, 1, (size_t)size, file) != (size_t)size)
        fail("%s: cannot read it", name);
    fclose(file);
    *length = (uint32_t)size;
    return data;
}

static void load(const char *directory) {
    uint32_t sessions_bytes, markers_bytes;
    pattern = read_file(directory, "pattern.bin", &pattern_bytes);
    sessions = read_file(directory, "sessions.bin", &sessions_bytes);
    uint8_t *raw = read_file(directory, "markers.bin", &markers_bytes);
    marker_count = markers_bytes / 4;
    markers = calloc(marker_count, sizeof *markers);
    publishers = calloc(publisher_count, sizeof *publishers);
    due_ns = calloc(publisher_count, sizeof *due_ns);
    if (markers == NULL || publishers == NULL || due_ns == NULL)
        fail("out of memory");
    for (uint32_t i = 0; i < marker_count; i++)
        markers[i] = get32(raw + 4 * i);
    free(raw);
    uint32_t at = 0;
    for (uint32_t i = 0; i < publisher_count; i++)
        for (int blob = 0; blob < BLOBS; blob++) {
            if (at + 4 > sessions_bytes || at + 4 + get32(sessions + at) > sessions_bytes)
                fail("sessions.bin ends early");
            publishers[i].blobs[blob] = (struct blob){sessions + at + 4, get32(sessions + at)};
            at += 4 + publishers[i].blobs[blob].length;
        }
}

/* Handshake, commands, pongs: small, on a connection whose buffers are empty or being read. */
static void send_all(struct publisher *publisher, const uint8_t *data, uint32_t length) {
    ssize_t n = send(publisher->fd, data, length, MSG_NOSIGNAL);
    if (n != (ssize_t)length)
        fail("publisher %u: the server does not take commands: %s", publisher->number, n < 0 ? strerror(errno) : "short write");
}

static void send_blob(struct publisher *publisher, int blob) {
    send_all(publisher, publisher->blobs[blob].data, publisher->blobs[blob].length);
}

static void open_publisher(uint32_t number) {
    struct publisher *publisher = &publishers[number];
    publisher->number = number;
    publisher->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (publisher->fd < 0 || connect(publisher->fd, (struct sockaddr *)&address, sizeof address) < 0)
        fail("publisher %u: connect: %s", number, strerror(errno));
    non_blocking(publisher->fd);
    no_delay(publisher->fd);
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = number};
    if (epoll_ctl(poll_fd, EPOLL_CTL_ADD, publisher->fd, &event) < 0)
        fail("epoll_ctl: %s", strerror(errno));
    uint8_t hello[1 + RTMP_HANDSHAKE_BYTES] = {3};
    for (uint32_t i = 9; i < sizeof hello; i++)
        hello[i] = (uint8_t)(i * 151 + number);
    send_all(publisher, hello, sizeof hello);
    rtmp_reader_init(&publisher->reader);
    publisher->state = HANDSHAKING;
    publisher->opened_ns = now_ns();
}

static void go_live(struct publisher *publisher) {
    send_blob(publisher, BLOB_PREAMBLE);
    publisher->state = LIVE;
    /* Golden-ratio phases: the publishers' GOPs, and their pieces, spread evenly however many there are. */
    double turns = (double)publisher->number * 0.6180339887498949;
    uint64_t phase = (uint64_t)((turns - (double)(uint64_t)turns) * (double)GOP_NS), now = now_ns();
    publisher->start_ns = now - now % GOP_NS + phase;
    if (publisher->start_ns < now)
        publisher->start_ns += GOP_NS;
    due_ns[publisher->number] = publisher->start_ns;
    live_count++;
}

static void on_message(void *context, const struct rtmp_message *message) {
    struct publisher *publisher = context;
    char name[64];
    double transaction;
    if (message->type == RTMP_USER_CONTROL && message->length >= 6 && message->body[1] == 6) {
        memcpy(publisher->ping_time, message->body + 2, 4);
        publisher->pinged = publisher->state == LIVE; /* Earlier pings come with the handshake; nobody insists on those. */
    }
    if (!rtmp_command(message, name, &transaction))
        return;
    if (strcmp(name, "_error") == 0)
        fail("publisher %u: the server answered _error to transaction %d", publisher->number, (int)transaction);
    if (strcmp(name, "_result") == 0 && publisher->state == CONNECTING && transaction == 1) {
        publisher->state = CREATING;
        send_blob(publisher, BLOB_CREATE);
    } else if (strcmp(name, "_result") == 0 && publisher->state == CREATING && transaction == 4) {
        publisher->state = PUBLISHING;
        send_blob(publisher, BLOB_PUBLISH);
    } else if (strcmp(name, "onStatus") == 0) {
        if (!rtmp_body_contains(message, "NetStream.Publish.Start"))
            fail("publisher %u: the server refused it or ended it", publisher->number);
        if (publisher->state == PUBLISHING)
            go_live(publisher);
    }
}

static void on_readable(struct publisher *publisher) {
    uint8_t data[16384];
    ssize_t n = recv(publisher->fd, data, sizeof data, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0)
        fail("publisher %u: the server closed it (%s)", publisher->number, n < 0 ? strerror(errno) : "end of stream");
    uint8_t *rest = data;
    if (publisher->state == HANDSHAKING) { /* S0 S1 S2, then C2, which nobody checks. */
        uint32_t left = 1 + 2 * RTMP_HANDSHAKE_BYTES - publisher->handshake_got;
        uint32_t take = (uint32_t)n < left ? (uint32_t)n : left;
        publisher->handshake_got += take, rest += take, n -= take;
        if (take < left)
            return;
        uint8_t echo[RTMP_HANDSHAKE_BYTES] = {0};
        send_all(publisher, echo, sizeof echo);
        send_blob(publisher, BLOB_CONNECT);
        publisher->state = CONNECTING;
    }
    rtmp_read(&publisher->reader, rest, (size_t)n, on_message, publisher);
}

/* A pong may stand only between messages. */
static void append_pong(struct publisher *publisher) {
    uint8_t *pong = publisher->stamped + publisher->piece_bytes;
    memcpy(pong, (uint8_t[14]){2, 0, 0, 0, 0, 0, 6, RTMP_USER_CONTROL, 0, 0, 0, 0, 0, 7}, 14);
    memcpy(pong + 14, publisher->ping_time, 4);
    publisher->piece_bytes += PONG_BYTES;
    publisher->pinged = false;
}

/* The next piece of the pattern: where it lies, or copied if there are markers in it to stamp. */
static void make_piece(struct publisher *publisher, uint64_t now) {
    uint32_t at = publisher->at, end = at + PIECE_BYTES;
    if (end > pattern_bytes)
        end = pattern_bytes;
    uint32_t index = publisher->marker;
    while (index < marker_count && markers[index] + MARKER_BYTES <= end)
        index++;
    bool ends_message = publisher->pinged && index > publisher->marker;
    if (ends_message)
        end = markers[index - 1] + MARKER_BYTES;
    else if (index < marker_count && markers[index] < end)
        end = markers[index];
    publisher->piece = pattern + at;
    if (index > publisher->marker)
        publisher->piece = memcpy(publisher->stamped, pattern + at, end - at);
    for (; publisher->marker < index; publisher->marker++) {
        struct marker marker = {publisher->number, publisher->unit++, now};
        marker_write(publisher->stamped + (markers[publisher->marker] - at), &marker);
        publisher->units_in_window += window_has(&window, now);
    }
    publisher->piece_bytes = publisher->piece_media_bytes = end - at;
    if (ends_message)
        append_pong(publisher);
    publisher->piece_left = publisher->piece_bytes;
}

static void piece_sent(struct publisher *publisher) {
    publisher->offset += publisher->piece_media_bytes;
    if ((publisher->at += publisher->piece_media_bytes) == pattern_bytes)
        publisher->at = publisher->marker = 0;
    uint64_t periods = publisher->offset / pattern_bytes, part = publisher->offset % pattern_bytes;
    due_ns[publisher->number] = publisher->start_ns + periods * PERIOD_NS + part * PERIOD_NS / pattern_bytes;
}

static void send_due_pieces(struct publisher *publisher) {
    uint64_t now, *due = &due_ns[publisher->number];
    while (*due <= (now = now_ns())) {
        if (publisher->piece_left == 0)
            make_piece(publisher, now);
        const uint8_t *rest = publisher->piece + publisher->piece_bytes - publisher->piece_left;
        ssize_t n = send(publisher->fd, rest, publisher->piece_left, MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN)
            fail("publisher %u: send: %s", publisher->number, strerror(errno));
        publisher->piece_left -= n > 0 ? (uint32_t)n : 0;
        if (publisher->piece_left > 0) { /* The server lags by a whole socket buffer. The next tick tries again. */
            blocked += window_has(&window, now);
            return;
        }
        if (window_has(&window, now)) {
            histogram_add(&late, (now - *due) / 1000);
            pieces_sent++;
            bytes_sent += publisher->piece_bytes;
        }
        piece_sent(publisher);
    }
}

static void tick(void) {
    uint64_t now = now_ns();
    static uint64_t next_open_ns;
    if (opened_count < publisher_count && now >= next_open_ns) {
        open_publisher(opened_count++);
        next_open_ns = now + OPEN_INTERVAL_NS;
        if (opened_count == publisher_count)
            next_open_ns = now + OPEN_DEADLINE_NS; /* From here on, when to look for those that never came live. */
    }
    for (uint32_t i = 0; i < opened_count; i++)
        if (due_ns[i] <= now)
            send_due_pieces(&publishers[i]);
    static bool ready;
    if (!ready && live_count == publisher_count) {
        printf("{\"ready\": %u}\n", publisher_count);
        ready = true;
    } else if (!ready && opened_count == publisher_count && now >= next_open_ns)
        fail("only %u of %u publishers may publish after 10 s", live_count, publisher_count);
}

static void report(void) {
    printf("{\"units\": [");
    for (uint32_t i = 0; i < publisher_count; i++)
        printf("%s%llu", i ? ", " : "", (unsigned long long)publishers[i].units_in_window);
    printf("], \"pieces\": %llu, \"bytes\": %llu, \"blocked\": %llu, ", (unsigned long long)pieces_sent,
           (unsigned long long)bytes_sent, (unsigned long long)blocked);
    histogram_print("late_us", &late);
    printf("}\n");
}

int main(int argc, char **argv) {
    begin_program(-10);
    if (argc != 5 || (publisher_count = (uint32_t)atoi(argv[3])) == 0 || publisher_count > STREAMS_MAX)
        fail("usage: generator HOST PORT COUNT DIRECTORY");
    address = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[2]))};
    if (inet_pton(AF_INET, argv[1], &address.sin_addr) != 1)
        fail("not an IPv4 address");
    load(argv[4]);
    for (uint32_t i = 0; i < publisher_count; i++)
        due_ns[i] = UINT64_MAX;
    poll_fd = epoll_create1(EPOLL_CLOEXEC);
    int timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    struct itimerspec every = {{0, TICK_NS}, {0, TICK_NS}};
    struct epoll_event on_timer = {.events = EPOLLIN, .data.u32 = UINT32_MAX};
    struct epoll_event on_stdin = {.events = EPOLLIN, .data.u32 = UINT32_MAX - 1};
    if (timerfd_settime(timer_fd, 0, &every, NULL) < 0 || epoll_ctl(poll_fd, EPOLL_CTL_ADD, timer_fd, &on_timer) < 0 ||
        epoll_ctl(poll_fd, EPOLL_CTL_ADD, 0, &on_stdin) < 0)
        fail("timer: %s", strerror(errno));
    for (;;) {
        struct epoll_event events[256];
        int n = epoll_wait(poll_fd, events, 256, -1);
        for (int i = 0; i < n; i++) {
            uint64_t ticks;
            if (events[i].data.u32 == UINT32_MAX)
                (void)!read(timer_fd, &ticks, sizeof ticks);
            else if (events[i].data.u32 == UINT32_MAX - 1)
                obey_stdin(&window, report);
            else
                on_readable(&publishers[events[i].data.u32]);
        }
        tick();
    }
}
