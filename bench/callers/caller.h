/*
 * What all native callers have in common: they meet the driver, do what it asks, and answer.
 *
 * A caller is one rank of one library. It connects to the driver's socket (BENCH_SOCKET), says which rank it is, and then
 * sleeps in read() until it is asked, so that it burns nothing while another library is measured. A file of a caller
 * includes this one and defines the four functions below; `src/caller/` does the same for unisono, in Rust. The one
 * invariant that matters: this loop and that one do the same work with one clock read per operation, so that what
 * differs is the library alone.
 */
#ifndef BENCH_CALLER_H
#define BENCH_CALLER_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "traffic.h"

enum operation { ALL_REDUCE, ALL_GATHER };
enum element { F32, BF16 };

/* One call. An all-reduce works in place: both buffers are the same. `count` is a rank's contribution. */
struct work {
    enum operation operation;
    enum element element;
    size_t count;
    void *input;
    void *output;
};

/* The place in the group; `library_start` may correct both. */
static int rank, ranks;

/* Join the group. */
static void library_start(void);
/* NULL, or why the library cannot do this. */
static const char *library_lacks(const struct work *work);
static void library_run(const struct work *work);
static void library_barrier(void);
static void library_end(void);

static void die(const char *what) {
    fprintf(stderr, "rank %d: %s: %s\n", rank, what, strerror(errno));
    exit(1);
}

static const char *setting(const char *name) {
    const char *value = getenv(name);
    if (!value) {
        fprintf(stderr, "%s is not set: callers are started by the driver\n", name);
        exit(1);
    }
    return value;
}

/* Rank r stays on the r-th of the cores named, beginning again where there are fewer cores than ranks. */
static void stay_on_core(void) {
    int cpus[64], known = 0;
    char list[512];
    snprintf(list, sizeof list, "%s", setting("BENCH_CPUS"));
    for (char *next = strtok(list, ","); next && known < 64; next = strtok(NULL, ",")) cpus[known++] = atoi(next);
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpus[rank % known], &set);
    if (sched_setaffinity(0, sizeof set, &set)) die("sched_setaffinity");
}

/* As the driver has, in case that a launcher has not passed it on. Without privileges nothing changes. */
static void raise_priority(void) {
    (void)setpriority(PRIO_PROCESS, 0, -20);
    FILE *group = fopen("/proc/self/autogroup", "w");
    if (group) {
        fputs("-20", group);
        fclose(group);
    }
}

static int meet_driver(void) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", setting("BENCH_SOCKET"));
    int driver = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (driver < 0 || connect(driver, (struct sockaddr *)&address, sizeof address)) die("the driver's socket");
    return driver;
}

static inline uint64_t nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static size_t element_bytes(enum element element) { return element == F32 ? 4 : 2; }
static size_t output_count(const struct work *work) {
    return work->operation == ALL_GATHER ? work->count * (size_t)ranks : work->count;
}

/* Pages that are written, not merely promised. */
static void *pages(size_t bytes) {
    void *start = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (start == MAP_FAILED) die("mmap");
    memset(start, 0, bytes);
    return start;
}

static void make_buffers(struct work *work) {
    size_t size = element_bytes(work->element);
    work->output = pages(output_count(work) * size);
    work->input = work->operation == ALL_REDUCE ? work->output : pages(work->count * size);
}

static void drop_buffers(struct work *work) {
    size_t size = element_bytes(work->element);
    if (work->input != work->output) munmap(work->input, work->count * size);
    munmap(work->output, output_count(work) * size);
}

/* Small whole numbers, whose sums over the ranks are exact in every type; the same as in src/caller/data.rs. */
static uint32_t value_of(uint64_t seed, int of_rank, size_t index) {
    return (uint32_t)((index * 7 + (uint64_t)of_rank * 13 + seed * 5) % 61);
}

static void store(enum element element, void *to, size_t index, uint32_t value) {
    float number = (float)value;
    uint32_t bits;
    memcpy(&bits, &number, 4);
    if (element == F32) {
        ((uint32_t *)to)[index] = bits;
    } else {
        ((uint16_t *)to)[index] = (uint16_t)(bits >> 16);
    }
}

static uint64_t check(struct work *work, int repetitions, uint64_t seed) {
    uint64_t wrong = 0;
    uint32_t expected[1], found[1];
    for (int repetition = 0; repetition < repetitions; repetition++, seed++) {
        for (size_t i = 0; i < work->count; i++) store(work->element, work->input, i, value_of(seed, rank, i));
        library_run(work);
        size_t count = output_count(work);
        for (size_t i = 0; i < count; i++) {
            uint32_t value = 0;
            if (work->operation == ALL_REDUCE) {
                for (int of_rank = 0; of_rank < ranks; of_rank++) value += value_of(seed, of_rank, i);
            } else {
                value = value_of(seed, (int)(i / work->count), i % work->count);
            }
            expected[0] = found[0] = 0;
            store(work->element, expected, 0, value);
            memcpy(found, (char *)work->output + i * element_bytes(work->element), element_bytes(work->element));
            wrong += expected[0] != found[0];
        }
    }
    return wrong;
}

static void time_alone(const struct work *work, uint32_t *samples, size_t operations) {
    uint64_t before = nanoseconds();
    for (size_t i = 0; i < operations; i++) {
        library_run(work);
        uint64_t after = nanoseconds();
        uint64_t taken = after - before;
        samples[i] = taken > UINT32_MAX ? UINT32_MAX : (uint32_t)taken;
        before = after;
    }
}

/* Write the input, call, read the output: what an engine does. Returns how many results were wrong. */
static uint64_t time_with_traffic(const struct work *work, uint32_t *samples, size_t operations) {
    size_t bytes = work->count * element_bytes(work->element);
    size_t output_bytes = output_count(work) * element_bytes(work->element);
    int summed = work->operation == ALL_REDUCE ? ranks : 1;
    uint64_t wrong = 0;
    uint64_t before = nanoseconds();
    for (size_t i = 0; i < operations; i++) {
        produce(work->input, bytes, i);
        library_run(work);
        uint64_t sum = consume(work->output, output_bytes);
        uint64_t after = nanoseconds();
        uint64_t taken = after - before;
        samples[i] = taken > UINT32_MAX ? UINT32_MAX : (uint32_t)taken;
        wrong += sum != expected_sum(output_bytes, i, work->element == BF16, summed);
        before = nanoseconds();
    }
    return wrong;
}

static void serve_time(FILE *out, struct work *work, const char *loop, size_t warm_up, size_t operations) {
    int with_traffic = !strcmp(loop, "traffic");
    size_t most = warm_up > operations ? warm_up : operations;
    uint32_t *samples = (uint32_t *)calloc(most ? most : 1, sizeof *samples);
    if (!samples) die("calloc");
    uint64_t wrong = 0;
    if (with_traffic) {
        time_with_traffic(work, samples, warm_up);
        library_barrier();
        wrong = time_with_traffic(work, samples, operations);
    } else {
        time_alone(work, samples, warm_up);
        library_barrier();
        time_alone(work, samples, operations);
    }
    fprintf(out, "samples %zu %llu\n", operations, (unsigned long long)wrong);
    fwrite(samples, sizeof *samples, operations, out);
    free(samples);
}

static int parse_work(const char *operation, const char *element, size_t count, struct work *work) {
    memset(work, 0, sizeof *work);
    work->count = count;
    if (!strcmp(operation, "all-reduce")) work->operation = ALL_REDUCE;
    else if (!strcmp(operation, "all-gather")) work->operation = ALL_GATHER;
    else return 0;
    if (!strcmp(element, "f32")) work->element = F32;
    else if (!strcmp(element, "bf16")) work->element = BF16;
    else return 0;
    return 1;
}

static void serve(FILE *in, FILE *out) {
    char line[512], operation[32], element[32], loop[32];
    unsigned long long count, warm_up, operations, repetitions, seed;
    while (fgets(line, sizeof line, in)) {
        struct work work;
        int is_time = sscanf(line, "time %31s %31s %llu %31s %llu %llu", operation, element, &count, loop, &warm_up,
                             &operations) == 6;
        int is_check = !is_time && sscanf(line, "check %31s %31s %llu %llu %llu", operation, element, &count,
                                          &repetitions, &seed) == 5;
        if (!strcmp(line, "quit\n")) break;
        if (!(is_time || is_check) || !parse_work(operation, element, (size_t)count, &work)) {
            fprintf(out, "lacks it: this caller does not know %s", line);
        } else if (library_lacks(&work)) {
            fprintf(out, "lacks %s\n", library_lacks(&work));
        } else {
            make_buffers(&work);
            if (is_time) serve_time(out, &work, loop, (size_t)warm_up, (size_t)operations);
            else fprintf(out, "wrong %llu\n", (unsigned long long)check(&work, (int)repetitions, seed));
            drop_buffers(&work);
        }
        fflush(out);
    }
}

int main(void) {
    raise_priority();
    rank = getenv("RANK") ? atoi(getenv("RANK")) : 0;
    ranks = getenv("WORLD_SIZE") ? atoi(getenv("WORLD_SIZE")) : 1;
    library_start();
    stay_on_core();
    int driver = meet_driver();
    FILE *in = fdopen(driver, "r"), *out = fdopen(dup(driver), "w");
    if (!in || !out) die("the driver's socket");
    fprintf(out, "rank %d %d %d\n", rank, (int)getpid(), (int)getsid(0));
    fflush(out);
    serve(in, out);
    library_end();
    return 0;
}
#endif
