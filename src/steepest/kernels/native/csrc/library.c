/* What the library exports: one call for a bucket of parameters, one for a list of gradients. */
#include <math.h>

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
    int64_t count, entries;
    Scratch scratch;
    atomic_llong next_chunk, next_matrix;
    atomic_int found;
} Search;

static int64_t size_of(const Array *a)
{
    return a->matrices * a->rows * a->columns;
}

/* Chunks of the arrays of which only this is asked. */
static void search_chunks(Search *s)
{
    int64_t first = 0, i = s->count - 1, chunk = atomic_fetch_add(&s->next_chunk, 1);
    while (i >= 0 && !atomic_load_explicit(&s->found, memory_order_relaxed)) {
        const Array *a = &s->arrays[i];
        int64_t count = size_of(a), chunks = a->sums ? 0 : (count + CHUNK - 1) / CHUNK;
        if (chunk >= first + chunks) {
            first += chunks;
            i--;
            continue;
        }
        int64_t from = (first + chunks - 1 - chunk) * CHUNK, to = from + CHUNK < count ? from + CHUNK : count;
        if (!level->finite(a, from, to))
            atomic_store(&s->found, 1);
        chunk = atomic_fetch_add(&s->next_chunk, 1);
    }
}

/* Rows [from, to) of a matrix: finite squares are of finite entries, others have to be looked at. */
static void search_rows(Search *s, const Array *a, int64_t index, int64_t from, int64_t to, double *columns)
{
    double *rows = a->sums + index * (a->rows + a->columns), energy = 0;
    int64_t at = index * a->rows * a->columns;
    level->squares(a, index, from, to, rows + from, columns);
    for (int64_t i = from; i < to; i++)
        energy += rows[i];
    if (!(energy < INFINITY) && !level->finite(a, at + from * a->columns, at + to * a->columns))
        atomic_store(&s->found, 1);
}

/* Whether all threads together measure a matrix. */
static int is_shared(const Search *s, const Array *a, Team team)
{
    int64_t entries = a->rows * a->columns;
    return a->sums && team.count > 1 && entries / WORTH_SHARING >= team.count &&
           entries > s->entries / team.count / 8;
}

static void search_matrices(Search *s, Team team)
{
    int64_t first = 0, i = s->count - 1, matrix = atomic_fetch_add(&s->next_matrix, 1);
    while (i >= 0 && !atomic_load_explicit(&s->found, memory_order_relaxed)) {
        const Array *a = &s->arrays[i];
        int64_t matrices = a->sums && !is_shared(s, a, team) ? a->matrices : 0;
        if (matrix >= first + matrices) {
            first += matrices;
            i--;
            continue;
        }
        int64_t index = first + matrices - 1 - matrix;
        search_rows(s, a, index, 0, a->rows, a->sums + index * (a->rows + a->columns) + a->rows);
        matrix = atomic_fetch_add(&s->next_matrix, 1);
    }
}

static void search_together(Search *s, Team team, const Array *a, int64_t index)
{
    double *columns = a->sums + index * (a->rows + a->columns) + a->rows;
    search_rows(s, a, index, share(a->rows, team.id, team.count), share(a->rows, team.id + 1, team.count),
                partial_columns(s->scratch, team.id));
    meet(team);
    for (int64_t j = share(a->columns, team.id, team.count); j < share(a->columns, team.id + 1, team.count); j++) {
        columns[j] = 0;
        for (int id = 0; id < team.count; id++)
            columns[j] += ((double *)partial_columns(s->scratch, id))[j];
    }
    meet(team);
}

/* From the last array to the first, large matrices at the end: the step that follows goes the other way and
   finds what was read last still in cache. */
static void search(void *context, Team team)
{
    Search *s = context;
    search_chunks(s);
    search_matrices(s, team);
    for (int64_t i = s->count - 1; i >= 0; i--)
        if (is_shared(s, &s->arrays[i], team))
            for (int64_t j = s->arrays[i].matrices - 1; j >= 0; j--)
                search_together(s, team, &s->arrays[i], j);
}

/* Whether all arrays are finite. `scratch` as for steepest_step; without sums none is needed. */
EXPORT int steepest_all_finite(const Array *arrays, int64_t count, void *scratch, int64_t rows, int64_t columns,
                               int threads)
{
    Search s = {arrays, count, 0, {scratch, rows, columns}, 0, 0, 0};
    for (int64_t i = 0; i < count; i++)
        s.entries += size_of(&arrays[i]);
    run(search, &s, useful(threads, s.entries));
    return !atomic_load(&s.found);
}
