/* Load for a relay, from one thread: it is handed open WebSockets, two a pair, and frames that are masked already.
 *
 *   relay_load flood PID WARM SECONDS WINDOW FRAME_BYTES FRAMES  S0 R0 S1 R1 …
 *   relay_load ping  GAP_US COUNT FRAME_BYTES FRAMES  S R
 *
 * FRAMES is a file: the frame of each pair, all of one length. `flood` keeps WINDOW messages of each pair in flight and
 * counts what arrives; `ping` sends one at a time and measures each. What comes back to a sender is an error message:
 * it is counted, and the first is quoted. The CPU time of PID is read at both ends of the measured time.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define READ_BYTES (512 * 1024)

struct reader {          /* cuts a stream into frames and counts those that hold data */
    unsigned char head[14];
    int head_bytes;
    uint64_t rest;       /* payload bytes that are still to come */
    long messages;
};

struct pair {
    int send_fd, receive_fd;
    struct reader in, back;
    long sent;           /* whole frames */
    size_t part;         /* bytes of the next frame that have gone */
    const char *batch;   /* WINDOW copies of the frame */
};

static unsigned char buffer[READ_BYTES];
static char complaint[256];

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static void die(const char *what) {
    fprintf(stderr, "relay_load: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* CPU seconds of a process, all threads. */
static double cpu_of(const char *pid) {
    char path[64], text[1024], *p;
    unsigned long user, system;
    snprintf(path, sizeof path, "/proc/%s/stat", pid);
    FILE *f = fopen(path, "r");
    if (!f) die(path);
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = 0;
    p = strrchr(text, ')');
    if (!p || sscanf(p + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system) != 2) die("stat");
    return (double)(user + system) / sysconf(_SC_CLK_TCK);
}

static double own_cpu(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return u.ru_utime.tv_sec + u.ru_stime.tv_sec + (u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1e-6;
}

static void parse(struct reader *r, const unsigned char *data, size_t size) {
    while (size) {
        if (r->rest) {
            size_t skip = r->rest < size ? r->rest : size;
            r->rest -= skip, data += skip, size -= skip;
            continue;
        }
        r->head[r->head_bytes++] = *data++, size--;
        if (r->head_bytes < 2) continue;
        int small = r->head[1] & 127, wanted = 2 + (small == 126 ? 2 : small == 127 ? 8 : 0) + (r->head[1] & 128 ? 4 : 0);
        if (r->head_bytes < wanted) continue;
        uint64_t length = small;
        if (small == 126) length = (uint64_t)r->head[2] << 8 | r->head[3];
        if (small == 127) { length = 0; for (int i = 2; i < 10; i++) length = length << 8 | r->head[i]; }
        int opcode = r->head[0] & 15;
        if (opcode == 8) { fprintf(stderr, "relay_load: the relay closed a connection\n"); exit(1); }
        if (opcode < 8 && r->head[0] & 128) r->messages++;
        r->rest = length, r->head_bytes = 0;
    }
}

/* Read what has come; false at the end of the stream. */
static int take(int fd, struct reader *r, int quote) {
    for (;;) {
        ssize_t n = read(fd, buffer, READ_BYTES);
        if (n < 0) { if (errno == EAGAIN || errno == EINTR) return 1; die("read"); }
        if (n == 0) return 0;
        if (quote && !complaint[0]) {
            size_t kept = 0;
            for (ssize_t i = 2; i < n && kept < 200; i++)
                complaint[kept++] = buffer[i] >= ' ' && buffer[i] < 127 && buffer[i] != '"' && buffer[i] != '\\' ? buffer[i] : ' ';
        }
        parse(r, buffer, n);
        if (n < READ_BYTES) return 1;
    }
}

static void push(struct pair *p, long window, size_t frame) {
    for (;;) {
        long credit = window - (p->sent - p->in.messages);
        if (credit <= 0) return;
        ssize_t n = write(p->send_fd, p->batch + p->part, credit * frame - p->part);
        if (n < 0) { if (errno == EAGAIN) return; die("write"); }
        p->part += n;
        p->sent += p->part / frame;
        p->part %= frame;
    }
}

static char *load(const char *path, size_t bytes) {
    char *data = malloc(bytes);
    FILE *f = fopen(path, "rb");
    if (!f || fread(data, 1, bytes, f) != bytes) die(path);
    fclose(f);
    return data;
}

static int flood(char **a, int fds) {
    const char *pid = a[0];
    double warm = atof(a[1]), seconds = atof(a[2]);
    long window = atol(a[3]);
    size_t frame = atol(a[4]);
    int count = fds / 2, poll = epoll_create1(0);
    char *frames = load(a[5], frame * count);
    struct pair *pairs = calloc(count, sizeof *pairs);
    for (int i = 0; i < count; i++) {
        struct pair *p = &pairs[i];
        p->send_fd = atoi(a[6 + 2 * i]), p->receive_fd = atoi(a[7 + 2 * i]);
        char *batch = malloc(window * frame);
        for (long j = 0; j < window; j++) memcpy(batch + j * frame, frames + i * frame, frame);
        p->batch = batch;
        for (int side = 0; side < 2; side++) {
            int fd = side ? p->receive_fd : p->send_fd;
            struct epoll_event e = {.events = EPOLLIN | (side ? 0 : EPOLLOUT | EPOLLET), .data.u32 = 2 * i + side};
            fcntl(fd, F_SETFL, O_NONBLOCK);
            epoll_ctl(poll, EPOLL_CTL_ADD, fd, &e);
        }
    }
    for (int i = 0; i < count; i++) push(&pairs[i], window, frame);
    double begin = now() + warm, end = begin + seconds, cpu0 = 0, own0 = 0, started = 0;
    long before = 0;
    for (double t = now(); t < end; t = now()) {
        if (!started && t >= begin) {
            for (int i = 0; i < count; i++) before += pairs[i].in.messages;
            cpu0 = cpu_of(pid), own0 = own_cpu(), started = t;
        }
        struct epoll_event events[64];
        int n = epoll_wait(poll, events, 64, 100);
        for (int i = 0; i < n; i++) {
            struct pair *p = &pairs[events[i].data.u32 / 2];
            int receiver = events[i].data.u32 & 1;
            if (events[i].events & EPOLLIN &&
                !take(receiver ? p->receive_fd : p->send_fd, receiver ? &p->in : &p->back, !receiver)) {
                fprintf(stderr, "relay_load: a connection ended\n");
                return 1;
            }
            push(p, window, frame);
        }
    }
    double took = now() - started;
    long messages = -before, errors = 0;
    for (int i = 0; i < count; i++) {
        messages += pairs[i].in.messages, errors += pairs[i].back.messages;
        if (pairs[i].in.messages > pairs[i].sent) { fprintf(stderr, "relay_load: more came than was sent\n"); return 1; }
    }
    printf("{\"messages\":%ld,\"seconds\":%.6f,\"relay_cpu\":%.3f,\"own_cpu\":%.3f,\"errors\":%ld,\"complaint\":\"%s\"}\n",
           messages, took, cpu_of(pid) - cpu0, own_cpu() - own0, errors, complaint);
    return 0;
}

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static int ping(char **a) {
    long gap = atol(a[0]), count = atol(a[1]);
    size_t frame = atol(a[2]);
    char *data = load(a[3], frame);
    int out = atoi(a[4]), in = atoi(a[5]);
    double *taken = malloc(count * sizeof *taken);
    struct reader r = {0};
    fcntl(out, F_SETFL, 0), fcntl(in, F_SETFL, 0);
    for (long i = 0; i < count; i++) {
        struct timespec pause = {gap / 1000000, gap % 1000000 * 1000};
        nanosleep(&pause, 0);
        double t = now();
        if (write(out, data, frame) != (ssize_t)frame) die("write");
        for (long seen = r.messages; r.messages == seen;) {
            ssize_t n = read(in, buffer, READ_BYTES);
            if (n <= 0) die("read");
            parse(&r, buffer, n);
        }
        taken[i] = (now() - t) * 1e6;
    }
    qsort(taken, count, sizeof *taken, compare);
    printf("{\"p50\":%.2f,\"p99\":%.2f,\"p10\":%.2f}\n", taken[count / 2], taken[count * 99 / 100], taken[count / 10]);
    return 0;
}

int main(int argc, char **argv) {
    if (argc > 8 && !strcmp(argv[1], "flood")) return flood(argv + 2, argc - 8);
    if (argc == 8 && !strcmp(argv[1], "ping")) return ping(argv + 2);
    fprintf(stderr, "relay_load: wrong call\n");
    return 2;
}
