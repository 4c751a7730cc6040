/* One parallel region on the OpenMP threads that torch already runs.

   The runtime's entry points are handed over at load time instead of being linked: a second OpenMP runtime in
   the process would bring a second pool of threads, and two pools fight for few cores. */
#ifndef STEEPEST_THREADS_H
#define STEEPEST_THREADS_H

#include <stdatomic.h>
#include <stdint.h>

typedef struct {
    int id, count;
} Team;

typedef struct {
    void (*body)(void *context, Team team);
    void *context;
} Work;

typedef struct {
    void (*parallel)(void (*body)(void *), void *data, unsigned threads, unsigned flags);
    void (*barrier)(void);
    int (*id)(void);
    int (*count)(void);
} Runtime;

extern Runtime steepest_runtime;

static void in_thread(void *data)
{
    const Work *work = data;
    Team team = {steepest_runtime.id(), steepest_runtime.count()};
    work->body(work->context, team);
}

/* Run body on `threads` threads. One thread is the caller alone, so that a forked child may call. */
static inline void run(void (*body)(void *, Team), void *context, int threads)
{
    Work work = {body, context};
    if (threads <= 1 || !steepest_runtime.parallel)
        body(context, (Team){0, 1});
    else
        steepest_runtime.parallel(in_thread, &work, (unsigned)threads, 0);
}

static inline void meet(Team team)
{
    if (team.count > 1)
        steepest_runtime.barrier();
}

/* The part of [0, n) that is one thread's own. */
static inline int64_t share(int64_t n, int id, int count)
{
    return n / count * id + (n % count < id ? n % count : id);
}

#endif
