/* What the sink's protocols offer it, and get from it. */
#ifndef EDGED_BENCH_SINK_H
#define EDGED_BENCH_SINK_H

#include "common.h"

#define QUARTERS 4 /* The window's quarters are also counted apart: a backlog shows as a delay that grows. */
#define TIMER_NS 100000000ull /* Origins send heartbeats, and ack units, at 10 Hz. */

struct peer { /* The first member of each protocol's own struct. */
    int fd;
    void *ssl; /* NULL on plain TCP. */
};

struct protocol {
    struct peer *(*opened)(void);
    void (*received)(struct peer *peer, const uint8_t *data, size_t n, uint64_t now);
    void (*closed)(struct peer *peer); /* The descriptor is closed already. */
    void (*timer)(uint64_t now); /* Each TIMER_NS, or NULL. */
};

extern const struct protocol rtmp_protocol; /* The server that nginx-rtmp pushes to. */
extern const struct protocol backbone_protocol; /* The origin that edged's PoP forwards to. */
void backbone_load(const char *directory); /* See sink_backbone.c. */

/* A unit has arrived whole at `now`; `tail` is its payload's last MARKER_BYTES, or NULL when it is shorter. */
void unit_received(const uint8_t *tail, uint64_t now);

/* Replies are small, and whoever does not read them is of no use here: what does not fit now ends the run. */
void peer_send(struct peer *peer, const void *data, size_t n);

#endif
