/* Working memory of a call: one area for each thread, owned by Python.

   An area holds partial column sums, column lengths, row lengths and a few sums, in units of 16 bytes so that
   every arithmetic fits. Row lengths and partial sums are a thread's own; the first area's column lengths are
   those of a matrix that all threads share. */
#ifndef STEEPEST_SCRATCH_H
#define STEEPEST_SCRATCH_H

#include <stdint.h>

#include "threads.h"

enum { UNIT = 16, SUMS = 8 };

typedef struct {
    char *base;
    int64_t rows, columns; /* capacity of an area */
} Scratch;

static inline int64_t area_bytes(int64_t rows, int64_t columns)
{
    return (UNIT * (SUMS + 2 * columns + rows) + 127) / 64 * 64; /* areas share no cache line */
}

static inline Scratch area(Scratch s, int id)
{
    s.base += id * area_bytes(s.rows, s.columns);
    return s;
}

static inline long double *sums(Scratch s, int id)
{
    return (long double *)area(s, id).base;
}

static inline void *partial_columns(Scratch s, int id)
{
    return area(s, id).base + UNIT * SUMS;
}

static inline void *column_lengths(Scratch s)
{
    return s.base + UNIT * (SUMS + s.columns);
}

static inline void *row_lengths(Scratch s, int id)
{
    return area(s, id).base + UNIT * (SUMS + 2 * s.columns);
}

/* The sum over threads, in their order, so that all find the same bits. */
static inline long double add_up(Scratch s, Team team, int slot)
{
    long double total = 0;
    for (int id = 0; id < team.count; id++)
        total += sums(s, id)[slot];
    return total;
}

#endif
