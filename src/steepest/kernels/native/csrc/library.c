/* What the library exports: one call for a bucket of parameters, one for a list of gradients. */
#include "level.h"

#if defined(__x86_64__) && !defined(STEEPEST_ONE_LEVEL)
#define LEVELS 1
#endif

#ifndef STEEPEST_COMPILER
#define STEEPEST_COMPILER "unknown"
#endif

#define EXPORT __attribute__((visibility("default")))

enum {
    CHUNK = 1 << 15,        /* entries of a piece of work */
    WORTH_SHARING = 1 << 15 /* entries for each thread, below which meeting costs more than it gains */
};

Runtime steepest_runtime;
static const Level *level = &steepest_baseline;

EXPORT int steepest_abi(void)
{
    return STEEPEST_ABI;
}

EXPORT const char *steepest_compiler(void)
{
    return STEEPEST_COMPILER;
}

/* Choose the best level up to `highest` (0 baseline, 1 AVX2, 2 AVX-512) and return its name. */
EXPORT const char *steepest_choose(int highest)
{
    level = &steepest_baseline;
#ifdef LEVELS
    __builtin_cpu_init();
    if (highest >= 1 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        level = &steepest_avx2;
    if (highest >= 2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        level = &steepest_avx512;
#else
    (void)highest;
#endif
    return level->name;
}

EXPORT void steepest_use_runtime(void *parallel, void *barrier, void *id, void *count)
{
    Runtime runtime = {.parallel = parallel, .barrier = barrier, .id = id, .count = count};
    steepest_runtime = runtime;
}

EXPORT int64_t steepest_scratch_bytes(int64_t rows, int64_t columns)
{
    return area_bytes(rows, columns);
}

/* No more threads than pieces of work. */
static int useful(int threads, int64_t entries)
{
    int64_t pieces = (entries + CHUNK - 1) / CHUNK;
    return pieces < threads ? (int)pieces : threads;
}

typedef struct {
    const Recipe *recipe;
    const Tensor *tensors;
    const double *steps;
    int64_t count, entries;
    Scratch scratch;
    atomic_llong next[3]; /* the next piece of work, of each phase */
} Job;

static Numbers numbers(const Job *job, int64_t i)
{
    return numbers_at(job->recipe, job->steps ? job->steps[i] : 0);
}

/* Chunks of all parameters in one row, each for the next thread that is free. */
static void step_elementwise(void *context, Team team)
{
    Job *job = context;
    int64_t first = 0; /* number of the first chunk of parameter i */
    int64_t i = 0, chunk = atomic_fetch_add(&job->next[0], 1);
    (void)team;
    while (i < job->count) {
        const Tensor *t = &job->tensors[i];
        int64_t entries = t->matrices * t->rows * t->columns, chunks = (entries + CHUNK - 1) / CHUNK;
        if (chunk >= first + chunks) {
            first += chunks;
            i++;
            continue;
        }
        Numbers k = numbers(job, i);
        int64_t from = (chunk - first) * CHUNK, to = from + CHUNK < entries ? from + CHUNK : entries;
        level->elementwise(job->recipe, t, &k, from, to);
        chunk = atomic_fetch_add(&job->next[0], 1);
    }
}

/* Who moves a matrix: all threads together one larger than a thread's share of the work, else one thread. The
   larger of these go first, so that none is left at the end with only one thread at work. */
enum phase { TOGETHER, LARGE, SMALL };

static enum phase phase_of(const Job *job, const Tensor *t, Team team)
{
    int64_t entries = t->rows * t->columns;
    if (entries / WORTH_SHARING >= team.count && entries > job->entries / team.count && team.count > 1)
        return TOGETHER;
    return entries > job->entries / team.count / 8 ? LARGE : SMALL;
}

static void take_matrices(Job *job, Team team, enum phase phase)
{
    int64_t first = 0, i = 0, mine = atomic_fetch_add(&job->next[phase], 1);
    while (i < job->count) {
        const Tensor *t = &job->tensors[i];
        int64_t matrices = phase_of(job, t, team) == phase ? t->matrices : 0;
        if (mine >= first + matrices) {
            first += matrices;
            i++;
            continue;
        }
        Numbers k = numbers(job, i);
        level->matrix(job->recipe, t, &k, mine - first, (Team){0, 1}, area(job->scratch, team.id));
        mine = atomic_fetch_add(&job->next[phase], 1);
    }
}

static void step_matrices(void *context, Team team)
{
    Job *job = context;
    for (int64_t i = 0; i < job->count; i++) {
        const Tensor *t = &job->tensors[i];
        if (phase_of(job, t, team) != TOGETHER)
            continue;
        Numbers k = numbers(job, i);
        for (int64_t j = 0; j < t->matrices; j++)
            level->matrix(job->recipe, t, &k, j, team, job->scratch);
    }
    meet(team); /* the first area was everyone's */
    take_matrices(job, team, LARGE);
    take_matrices(job, team, SMALL);
}

/* Take one step with all parameters. `scratch` holds steepest_scratch_bytes(rows, columns) for each thread,
   where no matrix has more rows or columns; plans without matrices need none. */
EXPORT void steepest_step(const Recipe *recipe, const Tensor *tensors, const double *steps, int64_t count, void *scratch,
                   int64_t rows, int64_t columns, int threads)
{
    Job job = {recipe, tensors, steps, count, 0, {scratch, rows, columns}, {0, 0, 0}};
    for (int64_t i = 0; i < count; i++)
        job.entries += tensors[i].matrices * tensors[i].rows * tensors[i].columns;
    run(recipe->kind == ELEMENTWISE ? step_elementwise : step_matrices, &job, useful(threads, job.entries));
}

typedef struct {
    const Array *arrays;
    int64_t count;
    atomic_llong next;
    atomic_int found;
} Search;

/* From the last array to the first: the step that follows begins with the first, then still in cache. */
static void search(void *context, Team team)
{
    Search *s = context;
    int64_t first = 0, i = s->count - 1, chunk = atomic_fetch_add(&s->next, 1);
    (void)team;
    while (i >= 0 && !atomic_load_explicit(&s->found, memory_order_relaxed)) {
        const Array *a = &s->arrays[i];
        int64_t chunks = (a->count + CHUNK - 1) / CHUNK;
        if (chunk >= first + chunks) {
            first += chunks;
            i--;
            continue;
        }
        int64_t from = (first + chunks - 1 - chunk) * CHUNK, to = from + CHUNK < a->count ? from + CHUNK : a->count;
        if (!level->finite(a, from, to))
            atomic_store(&s->found, 1);
        chunk = atomic_fetch_add(&s->next, 1);
    }
}

EXPORT int steepest_all_finite(const Array *arrays, int64_t count, int threads)
{
    Search s = {arrays, count, 0, 0};
    int64_t entries = 0;
    for (int64_t i = 0; i < count; i++)
        entries += arrays[i].count;
    run(search, &s, useful(threads, entries));
    return !atomic_load(&s.found);
}
