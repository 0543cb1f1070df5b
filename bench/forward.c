/* The ideal relay, for judging the load generator: no handshake, no lookup, no JSON.
 *
 *   forward IN0 OUT0 IN1 OUT1 …
 *
 * Frames that arrive on IN are unmasked as RFC 6455 asks and leave on OUT, all of one read in one write.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#define HELD (1 << 20)

struct way { int in, out; size_t held; unsigned char data[HELD]; };

static unsigned char outgoing[HELD];

static void write_all(int fd, const unsigned char *data, size_t size) {
    while (size) {
        ssize_t n = write(fd, data, size);
        if (n < 0 && errno == EAGAIN) { struct pollfd p = {fd, POLLOUT, 0}; poll(&p, 1, -1); continue; }
        if (n <= 0) exit(0);
        data += n, size -= n;
    }
}

static void forward(struct way *w) {
    size_t at = 0, made = 0;
    for (;;) {
        unsigned char *f = w->data + at;
        size_t have = w->held - at, head = 2;
        if (have < 2) break;
        uint64_t length = f[1] & 127;
        if (length == 126) head = 4; else if (length == 127) head = 10;
        if (have < head + 4) break;
        if (head == 4) length = (uint64_t)f[2] << 8 | f[3];
        if (head == 10) { length = 0; for (int i = 2; i < 10; i++) length = length << 8 | f[i]; }
        if (have < head + 4 + length) break;
        unsigned char *mask = f + head, *from = mask + 4, *to = outgoing + made + head;
        memcpy(outgoing + made, f, head);
        outgoing[made + 1] &= 127;
        uint32_t four;
        uint64_t eight, word, i = 0;
        memcpy(&four, mask, 4);
        eight = (uint64_t)four << 32 | four;
        for (; i + 8 <= length; i += 8) { memcpy(&word, from + i, 8); word ^= eight; memcpy(to + i, &word, 8); }
        for (; i < length; i++) to[i] = from[i] ^ mask[i & 3];
        made += head + length;
        at += head + 4 + length;
    }
    memmove(w->data, w->data + at, w->held -= at);
    write_all(w->out, outgoing, made);
}

int main(int argc, char **argv) {
    int count = (argc - 1) / 2, epoll = epoll_create1(0);
    struct way *ways = calloc(count, sizeof *ways);
    for (int i = 0; i < count; i++) {
        struct epoll_event e = {.events = EPOLLIN, .data.u32 = i};
        ways[i].in = atoi(argv[1 + 2 * i]), ways[i].out = atoi(argv[2 + 2 * i]);
        fcntl(ways[i].in, F_SETFL, O_NONBLOCK), fcntl(ways[i].out, F_SETFL, O_NONBLOCK);
        epoll_ctl(epoll, EPOLL_CTL_ADD, ways[i].in, &e);
    }
    for (;;) {
        struct epoll_event events[64];
        int n = epoll_wait(epoll, events, 64, -1);
        for (int i = 0; i < n; i++) {
            struct way *w = &ways[events[i].data.u32];
            ssize_t got = read(w->in, w->data + w->held, HELD - w->held);
            if (got < 0 && errno == EAGAIN) continue;
            if (got <= 0) return 0;
            w->held += got;
            forward(w);
        }
    }
}
