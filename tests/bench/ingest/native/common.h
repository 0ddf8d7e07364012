/* What the generator and the sink share: clocks, byte order, the marker, and a reader of RTMP chunks. */
#ifndef EDGED_BENCH_COMMON_H
#define EDGED_BENCH_COMMON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define STREAMS_MAX 4096 /* Two marker digits could name 16384; one process's descriptors are the limit. */
#define NS_PER_S 1000000000ull

/* The marker is the end of each unit's payload. Its digits have the high bit set (7 bits each), so that it never
 * looks like a start code or needs emulation prevention inside a NAL unit:
 *   magic 8, stream number 2 digits, unit number 5 digits, CLOCK_MONOTONIC ns 9 digits; most significant first. */
#define MARKER_BYTES 24
#define MARKER_MAGIC "\xc5\xed\x9e\xd0\xbe\xac\xf1\x95"

struct marker {
    uint32_t stream;
    uint64_t unit;
    uint64_t sent_ns;
};

void marker_write(uint8_t *at, const struct marker *marker);
bool marker_read(const uint8_t *at, struct marker *marker);

uint64_t now_ns(void);
_Noreturn void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Ends with its parent, writes line by line, and goes before others on its core: the load must be what it says. */
void begin_program(int niceness);
void non_blocking(int fd);
void no_delay(int fd);

static inline uint32_t get24(const uint8_t *p) { return (uint32_t)p[0] << 16 | (uint32_t)p[1] << 8 | p[2]; }
static inline uint32_t get32(const uint8_t *p) { return (uint32_t)p[0] << 24 | get24(p + 1); }
static inline uint64_t get64(const uint8_t *p) { return (uint64_t)get32(p) << 32 | get32(p + 4); }
static inline void put32(uint8_t *p, uint32_t v) {
    p[0] = (uint8_t)(v >> 24), p[1] = (uint8_t)(v >> 16), p[2] = (uint8_t)(v >> 8), p[3] = (uint8_t)v;
}
static inline void put64(uint8_t *p, uint64_t v) { put32(p, (uint32_t)(v >> 32)), put32(p + 4, (uint32_t)v); }

/* A histogram of microseconds: exact below 128, then 64 buckets for each doubling (1.6 % wide). */
#define HISTOGRAM_BUCKETS (128 + 64 * 25)

struct histogram {
    uint64_t count, max_us;
    uint64_t bucket[HISTOGRAM_BUCKETS];
};

void histogram_add(struct histogram *histogram, uint64_t us);
uint64_t histogram_percentile_us(const struct histogram *histogram, double fraction);
void histogram_print(const char *key, const struct histogram *histogram); /* "KEY": {...}, as JSON */

/* The measured window, in CLOCK_MONOTONIC ns; both programs are told it by a line "window BEGIN END" on stdin. */
struct window {
    uint64_t begin_ns, end_ns;
};

static inline bool window_has(const struct window *window, uint64_t ns) {
    return ns >= window->begin_ns && ns < window->end_ns;
}

/* Obeys one line of stdin: "window ..." is stored, "report" calls `report`, end of file ends the process. */
void obey_stdin(struct window *window, void (*report)(void));

/* RTMP */
#define RTMP_HANDSHAKE_BYTES 1536
#define RTMP_CHUNK_STREAMS 64 /* Nobody here uses a two-byte chunk stream id. */
#define RTMP_BODY_BYTES_MAX 4096 /* Of commands and controls; media bodies are not kept. */

enum { RTMP_SET_CHUNK_SIZE = 1, RTMP_ACK = 3, RTMP_USER_CONTROL = 4, RTMP_AUDIO = 8, RTMP_VIDEO = 9, RTMP_COMMAND = 20 };

struct rtmp_message {
    uint8_t type;
    uint32_t length;
    const uint8_t *body; /* Commands and controls: the first RTMP_BODY_BYTES_MAX bytes. Media: NULL. */
    const uint8_t *tail; /* Media of at least MARKER_BYTES: the last MARKER_BYTES. Else NULL. */
};

struct rtmp_chunk_stream {
    uint32_t length, got;
    uint8_t type;
    bool extended; /* The last header had an extended timestamp, so type 3 headers repeat it. */
    uint8_t *body;
    uint8_t tail[MARKER_BYTES];
};

struct rtmp_reader {
    uint32_t chunk_size;
    uint8_t header[18];
    uint32_t header_bytes;
    uint32_t chunk_left;
    struct rtmp_chunk_stream *current;
    struct rtmp_chunk_stream streams[RTMP_CHUNK_STREAMS];
};

typedef void rtmp_on_message(void *context, const struct rtmp_message *message);

void rtmp_reader_init(struct rtmp_reader *reader);
void rtmp_reader_free(struct rtmp_reader *reader);
void rtmp_read(struct rtmp_reader *reader, const uint8_t *data, size_t n, rtmp_on_message *deliver, void *context);

/* A command's name and transaction number (AMF0); false when the body is something else. */
bool rtmp_command(const struct rtmp_message *message, char name[64], double *transaction);
bool rtmp_body_contains(const struct rtmp_message *message, const char *text);

#endif
