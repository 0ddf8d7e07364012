/* See common.h. */
#define _GNU_SOURCE
#include "common.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

/* One JSON line on stdout says why, and the process ends: a half-broken measurement is worth nothing. */
void fail(const char *format, ...) {
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    printf("{\"error\": \"%s\"}\n", text);
    fflush(stdout);
    exit(1);
}

void begin_program(int niceness) {
    setpriority(PRIO_PROCESS, 0, niceness); /* As root only; else the machine should be quiet. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    signal(SIGPIPE, SIG_IGN);
    setvbuf(stdout, NULL, _IOLBF, 0);
}

void non_blocking(int fd) {
    if (fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) < 0)
        fail("fcntl: %s", strerror(errno));
}

void no_delay(int fd) {
    if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int)) < 0)
        fail("TCP_NODELAY: %s", strerror(errno));
}

static void put_digits(uint8_t *at, int digits, uint64_t value) {
    for (int i = digits - 1; i >= 0; i--, value >>= 7)
        at[i] = (uint8_t)(0x80 | (value & 0x7f));
}

static uint64_t get_digits(const uint8_t *at, int digits) {
    uint64_t value = 0;
    for (int i = 0; i < digits; i++)
        value = value << 7 | (at[i] & 0x7f);
    return value;
}

void marker_write(uint8_t *at, const struct marker *marker) {
    memcpy(at, MARKER_MAGIC, 8);
    put_digits(at + 8, 2, marker->stream);
    put_digits(at + 10, 5, marker->unit);
    put_digits(at + 15, 9, marker->sent_ns);
}

bool marker_read(const uint8_t *at, struct marker *marker) {
    if (memcmp(at, MARKER_MAGIC, 8) != 0)
        return false;
    marker->stream = (uint32_t)get_digits(at + 8, 2);
    marker->unit = get_digits(at + 10, 5);
    marker->sent_ns = get_digits(at + 15, 9);
    return marker->stream < STREAMS_MAX;
}

static uint32_t bucket_of(uint64_t us) {
    if (us < 128)
        return (uint32_t)us;
    uint32_t doublings = 63 - (uint32_t)__builtin_clzll(us) - 6; /* us >> doublings is in [64, 128) */
    uint32_t bucket = 128 + (doublings - 1) * 64 + (uint32_t)((us >> doublings) - 64);
    return bucket < HISTOGRAM_BUCKETS ? bucket : HISTOGRAM_BUCKETS - 1;
}

static uint64_t bucket_top_us(uint32_t bucket) {
    if (bucket < 128)
        return bucket;
    uint32_t doublings = (bucket - 128) / 64 + 1;
    return ((uint64_t)((bucket - 128) % 64 + 64 + 1) << doublings) - 1;
}

void histogram_add(struct histogram *histogram, uint64_t us) {
    histogram->bucket[bucket_of(us)]++;
    histogram->count++;
    if (us > histogram->max_us)
        histogram->max_us = us;
}

uint64_t histogram_percentile_us(const struct histogram *histogram, double fraction) {
    uint64_t below = 0, wanted = (uint64_t)(fraction * (double)histogram->count);
    for (uint32_t i = 0; i < HISTOGRAM_BUCKETS; i++)
        if ((below += histogram->bucket[i]) > wanted)
            return bucket_top_us(i) < histogram->max_us ? bucket_top_us(i) : histogram->max_us;
    return histogram->max_us;
}

void histogram_print(const char *key, const struct histogram *histogram) {
    printf("\"%s\": {\"count\": %llu, \"p50\": %llu, \"p99\": %llu, \"max\": %llu}", key,
           (unsigned long long)histogram->count, (unsigned long long)histogram_percentile_us(histogram, 0.50),
           (unsigned long long)histogram_percentile_us(histogram, 0.99), (unsigned long long)histogram->max_us);
}

void obey_stdin(struct window *window, void (*report)(void)) {
    static char line[256];
    static size_t length;
    ssize_t n = read(0, line + length, sizeof line - 1 - length);
    if (n <= 0)
        exit(0);
    length += (size_t)n;
    line[length] = 0;
    for (char *end; (end = strchr(line, '\n')) != NULL;) {
        unsigned long long begin_ns, end_ns;
        *end = 0;
        if (sscanf(line, "window %llu %llu", &begin_ns, &end_ns) == 2)
            *window = (struct window){begin_ns, end_ns};
        else if (strcmp(line, "report") == 0)
            report();
        else
            fail("unknown order");
        length -= (size_t)(end + 1 - line);
        memmove(line, end + 1, length + 1);
    }
}

void rtmp_reader_init(struct rtmp_reader *reader) {
    memset(reader, 0, sizeof *reader);
    reader->chunk_size = 128;
}

void rtmp_reader_free(struct rtmp_reader *reader) {
    for (int i = 0; i < RTMP_CHUNK_STREAMS; i++)
        free(reader->streams[i].body);
}

static uint32_t header_bytes_wanted(struct rtmp_reader *reader) {
    static const uint32_t message_header[4] = {11, 7, 3, 0};
    if (reader->header_bytes == 0)
        return 1;
    uint32_t format = reader->header[0] >> 6, id = reader->header[0] & 63;
    if (id < 2)
        fail("chunk stream ids above 63 are not used here");
    uint32_t wanted = 1 + message_header[format];
    if (reader->header_bytes < wanted)
        return wanted;
    bool extended = format == 3 ? reader->streams[id].extended : get24(reader->header + 1) == 0xffffff;
    return wanted + (extended ? 4 : 0);
}

static void begin_chunk(struct rtmp_reader *reader) {
    const uint8_t *header = reader->header;
    struct rtmp_chunk_stream *stream = &reader->streams[header[0] & 63];
    uint32_t format = header[0] >> 6;
    if (format < 3)
        stream->extended = get24(header + 1) == 0xffffff;
    if (format < 2) {
        stream->length = get24(header + 4);
        stream->type = header[7];
    }
    uint32_t left = stream->length - stream->got;
    reader->current = stream;
    reader->chunk_left = left < reader->chunk_size ? left : reader->chunk_size;
    reader->header_bytes = 0;
}

static bool is_media(const struct rtmp_chunk_stream *stream) {
    return stream->type == RTMP_AUDIO || stream->type == RTMP_VIDEO;
}

static void keep(struct rtmp_chunk_stream *stream, const uint8_t *data, uint32_t n) {
    if (!is_media(stream)) {
        if (stream->body == NULL && (stream->body = malloc(RTMP_BODY_BYTES_MAX)) == NULL)
            fail("out of memory");
        if (stream->got < RTMP_BODY_BYTES_MAX) {
            uint32_t room = RTMP_BODY_BYTES_MAX - stream->got;
            memcpy(stream->body + stream->got, data, n < room ? n : room);
        }
    } else if (stream->length >= MARKER_BYTES && stream->got + n > stream->length - MARKER_BYTES) {
        uint32_t tail_at = stream->length - MARKER_BYTES;
        uint32_t skip = stream->got < tail_at ? tail_at - stream->got : 0;
        memcpy(stream->tail + (stream->got + skip - tail_at), data + skip, n - skip);
    }
    stream->got += n;
}

static void end_message(struct rtmp_reader *reader, rtmp_on_message *deliver, void *context) {
    struct rtmp_chunk_stream *stream = reader->current;
    struct rtmp_message message = {.type = stream->type, .length = stream->length};
    if (is_media(stream))
        message.tail = stream->length >= MARKER_BYTES ? stream->tail : NULL;
    else
        message.body = stream->body;
    stream->got = 0;
    if (message.type == RTMP_SET_CHUNK_SIZE && message.length >= 4)
        reader->chunk_size = get32(message.body) & 0x7fffffff;
    deliver(context, &message);
}

void rtmp_read(struct rtmp_reader *reader, const uint8_t *data, size_t n, rtmp_on_message *deliver, void *context) {
    while (n > 0) {
        if (reader->current == NULL) {
            uint32_t wanted;
            while ((wanted = header_bytes_wanted(reader)) > reader->header_bytes && n > 0)
                reader->header[reader->header_bytes++] = *data++, n--;
            if (wanted > reader->header_bytes)
                return;
            begin_chunk(reader);
        }
        uint32_t take = reader->chunk_left < n ? reader->chunk_left : (uint32_t)n;
        keep(reader->current, data, take);
        data += take, n -= take, reader->chunk_left -= take;
        if (reader->chunk_left > 0)
            return;
        if (reader->current->got == reader->current->length)
            end_message(reader, deliver, context);
        reader->current = NULL;
    }
}

bool rtmp_command(const struct rtmp_message *message, char name[64], double *transaction) {
    if (message->type != RTMP_COMMAND || message->length < 3 + 9)
        return false;
    uint32_t length = (uint32_t)message->body[1] << 8 | message->body[2];
    if (message->body[0] != 2 || length >= 64 || message->length < 3 + length + 9 || message->body[3 + length] != 0)
        return false;
    memcpy(name, message->body + 3, length);
    name[length] = 0;
    uint64_t bits = get64(message->body + 4 + length);
    memcpy(transaction, &bits, sizeof bits);
    return true;
}

bool rtmp_body_contains(const struct rtmp_message *message, const char *text) {
    uint32_t length = message->length < RTMP_BODY_BYTES_MAX ? message->length : RTMP_BODY_BYTES_MAX;
    return memmem(message->body, length, text, strlen(text)) != NULL;
}
