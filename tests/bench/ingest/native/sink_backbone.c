/* The sink as an origin's backbone listener (the layout: edged/wire/backbone/frames.py and messages.py).
 *
 * It says hello, sends heartbeats, accepts every stream, grants credit as it consumes, and acks as if it packaged at once.
 * What it says does not depend on what it hears, but for stream numbers; so servers.py makes those frames with edged's
 * own encoder, and DIRECTORY holds them: hello_control.bin, hello_media_0.bin .. hello_media_2.bin, heartbeat.bin,
 * directory.bin. */
#define _GNU_SOURCE
#include "sink.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STREAM_WINDOW_BYTES (16ull << 20) /* As servers.py says in the hello. */
#define SESSION_WINDOW_BYTES (64ull << 20)
#define BODY_BYTES_MAX (1 << 20)
#define ACKS_HEADER_BYTES 16
#define ACK_BYTES 30
#define ACKS_MAX 2000 /* What send_frame takes at once. */
#define PING_TICKS 10 /* Timer ticks between two pings. */

enum { HELLO = 0x01, MESSAGE = 0x02, PING = 0x03, PONG = 0x04, CREDIT = 0x05, UNIT = 0x10, EVENT = 0x11, FRAGMENT = 0x12 };
enum { UNIT_HEADER_BYTES = 60, FRAGMENT_HEADER_BYTES = 9, FRAME_HEADER_BYTES = 5 };

struct stream {
    bool open, moved; /* moved: since the last ack. */
    uint64_t home_epoch, consumed, limit;
    uint64_t seq, last_seq; /* Of the unit begun; of the last whole one. */
    uint32_t unit_bytes, got;
    uint8_t tail[MARKER_BYTES];
};

struct link {
    struct peer peer;
    struct link *next, *previous;
    bool greeted, is_control;
    uint64_t consumed, limit;
    uint8_t header[UNIT_HEADER_BYTES];
    uint32_t header_bytes, body_left, body_bytes;
    uint8_t kind;
    uint8_t *body; /* Of a control frame. */
    struct stream *stream; /* Of a media frame. */
    struct stream *streams; /* By stream number. */
    uint32_t stream_count;
};

struct frame {
    uint8_t data[8192];
    size_t length;
};

static struct frame hello_control, hello_media[3], heartbeat, directory_frame;
static struct link *links;

static void load_frame(const char *directory, const char *name, struct frame *frame) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    FILE *file = fopen(path, "rb");
    if (file == NULL || (frame->length = fread(frame->data, 1, sizeof frame->data, file)) == 0)
        fail("%s: cannot read it", name);
    fclose(file);
}

void backbone_load(const char *directory) {
    load_frame(directory, "hello_control.bin", &hello_control);
    load_frame(directory, "hello_media_0.bin", &hello_media[0]);
    load_frame(directory, "hello_media_1.bin", &hello_media[1]);
    load_frame(directory, "hello_media_2.bin", &hello_media[2]);
    load_frame(directory, "heartbeat.bin", &heartbeat);
    load_frame(directory, "directory.bin", &directory_frame);
}

/* A reader of msgpack, as much as control messages need; it fails on anything odd, for both ends are ours. */
struct cursor {
    const uint8_t *at, *end;
};

static const uint8_t *take(struct cursor *cursor, size_t n) {
    if ((size_t)(cursor->end - cursor->at) < n)
        fail("a backbone message ends early");
    const uint8_t *at = cursor->at;
    cursor->at += n;
    return at;
}

static uint64_t take_number(struct cursor *cursor, unsigned bytes) {
    uint64_t value = 0;
    for (const uint8_t *at = take(cursor, bytes); bytes > 0; bytes--)
        value = value << 8 | *at++;
    return value;
}

/* A head: its type by its letter (i integer, s string, a array, m map, - anything else) and its value or its size. */
static char take_head(struct cursor *cursor, uint64_t *value) {
    uint8_t byte = *take(cursor, 1);
    *value = byte;
    if (byte < 0x80)
        return 'i';
    if (byte >= 0xe0)
        return *value = (uint64_t)(int64_t)(int8_t)byte, 'i';
    if (byte < 0x90)
        return *value = byte & 15, 'm';
    if (byte < 0xa0)
        return *value = byte & 15, 'a';
    if (byte < 0xc0)
        return *value = byte & 31, 's';
    switch (byte) {
    case 0xc0: case 0xc2: case 0xc3: return *value = 0, '-';
    case 0xc4: case 0xc5: case 0xc6: return *value = take_number(cursor, 1u << (byte - 0xc4)), 's';
    case 0xca: return take_number(cursor, 4), '-';
    case 0xcb: return take_number(cursor, 8), '-';
    case 0xcc: case 0xcd: case 0xce: case 0xcf: return *value = take_number(cursor, 1u << (byte - 0xcc)), 'i';
    case 0xd0: case 0xd1: case 0xd2: case 0xd3: return *value = take_number(cursor, 1u << (byte - 0xd0)), 'i';
    case 0xd9: case 0xda: case 0xdb: return *value = take_number(cursor, 1u << (byte - 0xd9)), 's';
    case 0xdc: case 0xdd: return *value = take_number(cursor, 2u << (byte - 0xdc)), 'a';
    case 0xde: case 0xdf: return *value = take_number(cursor, 2u << (byte - 0xde)), 'm';
    default: fail("msgpack type %#x is not used on the backbone", byte);
    }
}

static void skip(struct cursor *cursor) {
    uint64_t size;
    char type = take_head(cursor, &size);
    if (type == 's')
        take(cursor, size);
    for (uint64_t i = 0; (type == 'a' && i < size) || (type == 'm' && i < 2 * size); i++)
        skip(cursor);
}

static uint64_t take_size(struct cursor *cursor, char wanted) {
    uint64_t size;
    if (take_head(cursor, &size) != wanted)
        fail("a backbone message is not laid out as expected");
    return size;
}

static bool take_string(struct cursor *cursor, const char *wanted) {
    uint64_t size = take_size(cursor, 's');
    const uint8_t *text = take(cursor, size);
    return size == strlen(wanted) && memcmp(text, wanted, size) == 0;
}

static void send_frame(struct link *link, uint8_t kind, const void *body, size_t n) {
    uint8_t frame[FRAME_HEADER_BYTES + 64 * 1024];
    if (n > sizeof frame - FRAME_HEADER_BYTES)
        fail("a frame too large");
    put32(frame, (uint32_t)n);
    frame[4] = kind;
    memcpy(frame + FRAME_HEADER_BYTES, body, n);
    peer_send(&link->peer, frame, FRAME_HEADER_BYTES + n);
}

static struct peer *opened(void) {
    struct link *link = calloc(1, sizeof *link);
    if (link == NULL || (link->body = malloc(BODY_BYTES_MAX)) == NULL)
        fail("out of memory");
    link->limit = SESSION_WINDOW_BYTES;
    if ((link->next = links) != NULL)
        links->previous = link;
    return &(links = link)->peer;
}

static void closed(struct peer *peer) {
    struct link *link = (struct link *)peer;
    *(link->previous ? &link->previous->next : &links) = link->next;
    if (link->next != NULL)
        link->next->previous = link->previous;
    free(link->body);
    free(link->streams);
    free(link);
}

/* ["hello", proto, role, name, shard, instance, purpose, priority, ...] */
static void greet(struct link *link) {
    struct cursor cursor = {link->body, link->body + link->body_bytes};
    take_size(&cursor, 'a');
    if (!take_string(&cursor, "hello"))
        fail("a hello that is none");
    for (int i = 0; i < 5; i++)
        skip(&cursor);
    link->is_control = take_string(&cursor, "control");
    uint64_t priority = take_size(&cursor, 'i');
    if (priority > 2)
        fail("a hello of priority %llu", (unsigned long long)priority);
    const struct frame *answer = link->is_control ? &hello_control : &hello_media[priority];
    peer_send(&link->peer, answer->data, answer->length);
    if (link->is_control)
        peer_send(&link->peer, directory_frame.data, directory_frame.length);
    link->greeted = true;
}

static struct stream *stream_of(struct link *link, uint32_t number) {
    if (number >= link->stream_count || !link->streams[number].open)
        fail("stream %u is not open", number);
    return &link->streams[number];
}

static void open_stream(struct link *link, uint32_t number, uint64_t home_epoch) {
    if (number >= STREAMS_MAX)
        fail("stream number %u: this sink takes less than %u in a session", number, STREAMS_MAX);
    if (number >= link->stream_count) {
        uint32_t count = number + 64;
        struct stream *streams = realloc(link->streams, count * sizeof *streams);
        if (streams == NULL)
            fail("out of memory");
        memset(streams + link->stream_count, 0, (count - link->stream_count) * sizeof *streams);
        link->streams = streams;
        link->stream_count = count;
    }
    link->streams[number] = (struct stream){.open = true, .home_epoch = home_epoch, .limit = STREAM_WINDOW_BYTES};
    uint8_t accepted[1 + 16 + 5 + 1] = "\x93\xafstream_accepted\xce";
    put32(accepted + 18, number);
    accepted[22] = 0xff; /* wanted_seq -1 */
    send_frame(link, MESSAGE, accepted, sizeof accepted);
}

/* stream_id: {"channel": ..., "publication": ..., "home_epoch": ...} */
static uint64_t take_home_epoch(struct cursor *cursor) {
    uint64_t home_epoch = 1;
    for (uint64_t n = take_size(cursor, 'm'); n > 0; n--) {
        if (take_string(cursor, "home_epoch"))
            home_epoch = take_size(cursor, 'i');
        else
            skip(cursor);
    }
    return home_epoch;
}

static void on_message(struct link *link) {
    struct cursor cursor = {link->body, link->body + link->body_bytes};
    take_size(&cursor, 'a');
    struct cursor tag = cursor;
    if (take_string(&cursor, "stream_opened")) {
        uint32_t number = (uint32_t)take_size(&cursor, 'i');
        open_stream(link, number, take_home_epoch(&cursor));
    } else if (cursor = tag, take_string(&cursor, "stream_closed")) {
        stream_of(link, (uint32_t)take_size(&cursor, 'i'))->open = false;
    } else if (cursor = tag, take_string(&cursor, "session_closed")) {
        uint64_t code_bytes = take_size(&cursor, 's');
        const char *code = (const char *)take(&cursor, code_bytes);
        uint64_t reason_bytes = take_size(&cursor, 's');
        const char *reason = (const char *)take(&cursor, reason_bytes);
        fprintf(stderr, "session closed by the PoP: %.*s: %.*s\n", (int)code_bytes, code, (int)reason_bytes, reason);
    }
}

static void grant(struct link *link, uint32_t number, uint64_t consumed, uint64_t window, uint64_t *limit) {
    if (consumed + window - *limit < window / 4)
        return;
    uint8_t entry[12];
    *limit = consumed + window;
    put32(entry, number);
    put64(entry + 4, *limit);
    send_frame(link, CREDIT, entry, sizeof entry);
}

static void end_frame(struct link *link, uint64_t now) {
    struct stream *stream = link->stream;
    if (link->kind == UNIT || link->kind == FRAGMENT) {
        uint32_t bytes = FRAME_HEADER_BYTES + get32(link->header);
        uint32_t number = (uint32_t)(stream - link->streams);
        stream->consumed += bytes, link->consumed += bytes;
        grant(link, number, stream->consumed, STREAM_WINDOW_BYTES, &stream->limit);
        grant(link, 0, link->consumed, SESSION_WINDOW_BYTES, &link->limit);
        if (stream->got == stream->unit_bytes) {
            unit_received(stream->unit_bytes >= MARKER_BYTES ? stream->tail : NULL, now);
            stream->last_seq = stream->seq;
            stream->moved = true;
        }
    } else if (link->kind == HELLO)
        greet(link);
    else if (link->kind == MESSAGE)
        on_message(link);
    else if (link->kind == PING)
        send_frame(link, PONG, link->body, link->body_bytes);
    else if (link->kind != PONG && link->kind != CREDIT)
        fail("a PoP sends no frame of kind %#x", link->kind);
    link->header_bytes = 0;
}

static uint32_t header_bytes_wanted(const struct link *link) {
    if (link->header_bytes < FRAME_HEADER_BYTES)
        return FRAME_HEADER_BYTES;
    return link->header[4] == UNIT ? UNIT_HEADER_BYTES : link->header[4] == FRAGMENT ? FRAGMENT_HEADER_BYTES : FRAME_HEADER_BYTES;
}

static void begin_frame(struct link *link) {
    const uint8_t *header = link->header;
    link->kind = header[4];
    link->body_left = FRAME_HEADER_BYTES + get32(header) - link->header_bytes;
    link->body_bytes = 0;
    link->stream = NULL;
    if (link->kind == UNIT) {
        struct stream *stream = link->stream = stream_of(link, get32(header + 8));
        if (stream->got != stream->unit_bytes)
            fail("a unit begins before the last one ended");
        stream->unit_bytes = get32(header + 16);
        stream->seq = get64(header + 20);
        stream->got = 0;
    } else if (link->kind == FRAGMENT)
        link->stream = stream_of(link, get32(header + 5));
    else if (link->body_left > BODY_BYTES_MAX)
        fail("a frame of %u bytes", link->body_left);
}

static void take_body(struct link *link, const uint8_t *data, uint32_t n) {
    struct stream *stream = link->stream;
    if (stream == NULL) {
        memcpy(link->body + link->body_bytes, data, n);
        link->body_bytes += n;
        return;
    }
    if (stream->got + n > stream->unit_bytes)
        fail("a unit is longer than it said");
    if (stream->unit_bytes >= MARKER_BYTES && stream->got + n > stream->unit_bytes - MARKER_BYTES) {
        uint32_t tail_at = stream->unit_bytes - MARKER_BYTES;
        uint32_t before = stream->got < tail_at ? tail_at - stream->got : 0;
        memcpy(stream->tail + (stream->got + before - tail_at), data + before, n - before);
    }
    stream->got += n;
}

static void received(struct peer *peer, const uint8_t *data, size_t n, uint64_t now) {
    struct link *link = (struct link *)peer;
    while (n > 0) {
        if (link->body_left == 0) {
            while (link->header_bytes < header_bytes_wanted(link) && n > 0)
                link->header[link->header_bytes++] = *data++, n--;
            if (link->header_bytes < header_bytes_wanted(link))
                return;
            begin_frame(link);
        }
        uint32_t now_bytes = link->body_left < n ? link->body_left : (uint32_t)n;
        take_body(link, data, now_bytes);
        data += now_bytes, n -= now_bytes;
        if ((link->body_left -= now_bytes) == 0)
            end_frame(link, now);
    }
}

/* ["units_acked", [[stream_no, home_epoch, received_seq, packaged_seq, []], ...]] for the streams that moved. */
static void send_acks(struct link *link) {
    static uint8_t body[ACKS_HEADER_BYTES + ACKS_MAX * ACK_BYTES];
    size_t length = ACKS_HEADER_BYTES;
    uint32_t count = 0;
    for (uint32_t number = 1; number < link->stream_count; number++) {
        struct stream *stream = &link->streams[number];
        if (!stream->open || !stream->moved)
            continue;
        stream->moved = false;
        uint8_t *ack = body + length;
        ack[0] = 0x95, ack[1] = 0xce, ack[6] = 0xcf, ack[15] = 0xcf, ack[24] = 0xce;
        put32(ack + 2, number), put64(ack + 7, stream->home_epoch), put64(ack + 16, stream->last_seq);
        put32(ack + 25, (uint32_t)stream->last_seq); /* A bench of 2^32 units would take a year. */
        ack[29] = 0x90;
        length += ACK_BYTES;
        if (++count == ACKS_MAX)
            break; /* The others have their turn at the next tick. */
    }
    if (count == 0)
        return;
    memcpy(body, "\x92\xabunits_acked\xdc", 14);
    body[14] = (uint8_t)(count >> 8), body[15] = (uint8_t)count;
    send_frame(link, MESSAGE, body, length);
}

static void timer(uint64_t now) {
    static uint64_t ticks;
    bool is_ping_time = ++ticks % PING_TICKS == 0;
    for (struct link *link = links; link != NULL; link = link->next) {
        uint8_t token[8];
        if (!link->greeted)
            continue;
        if (link->is_control)
            peer_send(&link->peer, heartbeat.data, heartbeat.length);
        else
            send_acks(link);
        put64(token, now);
        if (is_ping_time)
            send_frame(link, PING, token, sizeof token);
    }
}

const struct protocol backbone_protocol = {opened, received, closed, timer};
