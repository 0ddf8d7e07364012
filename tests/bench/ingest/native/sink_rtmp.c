/* The sink as an RTMP server: enough of one for a relay to publish to. */
#include "sink.h"

#include <stdlib.h>
#include <string.h>

#define ACK_INTERVAL_BYTES 1250000 /* Half of what most ask for. */

struct session {
    struct peer peer;
    uint64_t received, acked, now;
    struct rtmp_reader reader;
};

static void reply(struct session *session, const void *data, size_t n) { peer_send(&session->peer, data, n); }

static struct peer *opened(void) {
    struct session *session = calloc(1, sizeof *session);
    if (session == NULL)
        fail("out of memory");
    rtmp_reader_init(&session->reader);
    return &session->peer;
}

static void closed(struct peer *peer) {
    struct session *session = (struct session *)peer;
    rtmp_reader_free(&session->reader);
    free(session);
}

/* AMF0 in a growing buffer. */
struct amf {
    uint8_t data[512];
    size_t length;
};

static void raw(struct amf *amf, const void *data, size_t n) {
    memcpy(amf->data + amf->length, data, n);
    amf->length += n;
}

static void key(struct amf *amf, const char *text) {
    raw(amf, (uint8_t[]){0, (uint8_t)strlen(text)}, 2);
    raw(amf, text, strlen(text));
}

static void string(struct amf *amf, const char *text) {
    raw(amf, "\x02", 1);
    key(amf, text);
}

static void number(struct amf *amf, double value) {
    uint8_t bytes[9] = {0};
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    put64(bytes + 1, bits);
    raw(amf, bytes, sizeof bytes);
}

static void status(struct amf *amf, const char *code) {
    raw(amf, "\x03", 1);
    key(amf, "level"), string(amf, "status");
    key(amf, "code"), string(amf, code);
    raw(amf, "\0\0\x09", 3);
}

static void send_command(struct session *session, uint8_t message_stream, const struct amf *amf) {
    /* Fits in one chunk once we have set our chunk size, which goes out before the first command. */
    uint8_t message[12 + sizeof amf->data] = {3, 0, 0, 0, 0, 0, 0, RTMP_COMMAND, message_stream};
    message[5] = (uint8_t)(amf->length >> 8), message[6] = (uint8_t)amf->length;
    memcpy(message + 12, amf->data, amf->length);
    reply(session, message, 12 + amf->length);
}

static void on_message(void *context, const struct rtmp_message *message) {
    struct session *session = context;
    char name[64];
    double transaction;
    if (message->body == NULL) {
        if (message->type == RTMP_AUDIO || message->type == RTMP_VIDEO)
            unit_received(message->tail, session->now);
        return;
    }
    if (!rtmp_command(message, name, &transaction))
        return;
    struct amf amf = {.length = 0};
    if (strcmp(name, "connect") == 0) {
        static const uint8_t chunk_size[16] = {2, 0, 0, 0, 0, 0, 4, RTMP_SET_CHUNK_SIZE, 0, 0, 0, 0, 0, 0, 16, 0};
        reply(session, chunk_size, sizeof chunk_size);
        string(&amf, "_result"), number(&amf, transaction);
        raw(&amf, "\x05", 1);
        status(&amf, "NetConnection.Connect.Success");
        send_command(session, 0, &amf);
    } else if (strcmp(name, "createStream") == 0) {
        string(&amf, "_result"), number(&amf, transaction);
        raw(&amf, "\x05", 1);
        number(&amf, 1);
        send_command(session, 0, &amf);
    } else if (strcmp(name, "publish") == 0) {
        string(&amf, "onStatus"), number(&amf, 0);
        raw(&amf, "\x05", 1);
        status(&amf, "NetStream.Publish.Start");
        send_command(session, 1, &amf);
    }
}

static void acknowledge(struct session *session) {
    uint8_t ack[16] = {2, 0, 0, 0, 0, 0, 4, RTMP_ACK};
    put32(ack + 12, (uint32_t)session->received);
    reply(session, ack, sizeof ack);
    session->acked = session->received;
}

static void received(struct peer *peer, const uint8_t *data, size_t n, uint64_t now) {
    struct session *session = (struct session *)peer;
    const uint64_t hello = 1 + RTMP_HANDSHAKE_BYTES, handshake = hello + RTMP_HANDSHAKE_BYTES;
    session->now = now;
    if (session->received < handshake) { /* C0 C1, answered by S0 S1 S2; then C2, which is not checked. */
        uint64_t left = handshake - session->received, before = session->received;
        uint64_t take = n < left ? n : left;
        session->received += take;
        if (before < hello && session->received >= hello) {
            uint8_t answer[1 + 2 * RTMP_HANDSHAKE_BYTES] = {3};
            reply(session, answer, sizeof answer);
        }
        data += take, n -= take;
    }
    session->received += n;
    rtmp_read(&session->reader, data, n, on_message, session);
    if (session->received - session->acked >= ACK_INTERVAL_BYTES)
        acknowledge(session);
}

const struct protocol rtmp_protocol = {opened, received, closed, NULL};
