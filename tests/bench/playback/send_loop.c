/* The floor of a release: the same bytes to every connection, in one loop of send(2).

   send_loop CONNECTIONS FILE: listens on a free port of loopback and prints {"port": N}; takes so
   many connections and reads what each asks; then at each line on stdin sends FILE to all and
   prints {"took_us": T, "short": how many sends did not take it whole}. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static void fail(const char *what)
{
    printf("{\"error\": \"%s\"}\n", what);
    exit(1);
}

static double now_us(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec * 1e6 + at.tv_nsec / 1e3;
}

int main(int argc, char **argv)
{
    static char data[1 << 20], line[256], request[4096];
    if (argc != 3) fail("send_loop CONNECTIONS FILE");
    int count = atoi(argv[1]);
    FILE *file = fopen(argv[2], "rb");
    if (count < 1 || !file) fail("cannot read the file");
    size_t size = fread(data, 1, sizeof data, file);
    int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t at_size = sizeof at;
    if (bind(listener, (struct sockaddr *)&at, sizeof at) || listen(listener, 1024)) fail("listen");
    getsockname(listener, (struct sockaddr *)&at, &at_size);
    printf("{\"port\": %d}\n", ntohs(at.sin_port));
    fflush(stdout);
    int *connections = calloc(count, sizeof *connections);
    for (int i = 0; i < count; i++) {
        if ((connections[i] = accept(listener, NULL, NULL)) < 0) fail("accept");
        setsockopt(connections[i], IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    }
    while (fgets(line, sizeof line, stdin)) {
        int refused = 0;
        for (int i = 0; i < count; i++) {
            if (read(connections[i], request, sizeof request) <= 0) fail("a client left");
            fcntl(connections[i], F_SETFL, O_NONBLOCK);
        }
        double begun = now_us();
        for (int i = 0; i < count; i++)
            refused += send(connections[i], data, size, MSG_NOSIGNAL) != (ssize_t)size;
        double took = now_us() - begun;
        for (int i = 0; i < count; i++) fcntl(connections[i], F_SETFL, 0);
        printf("{\"took_us\": %.0f, \"short\": %d}\n", took, refused);
        fflush(stdout);
    }
    return 0;
}
