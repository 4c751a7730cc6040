/* The kernels as compiled for one level of instructions. */
#ifndef STEEPEST_LEVEL_H
#define STEEPEST_LEVEL_H

#include "abi.h"
#include "numbers.h"
#include "scratch.h"
#include "threads.h"

typedef struct {
    const char *name;
    void (*elementwise)(const Recipe *, const Tensor *, const Numbers *, int64_t from, int64_t to);
    void (*matrix)(const Recipe *, const Tensor *, const Numbers *, int64_t index, Team, Scratch);
    int (*finite)(const Array *, int64_t from, int64_t to);
    void (*squares)(const Array *, int64_t index, int64_t from, int64_t to, double *rows, double *columns);
} Level;

extern const Level steepest_baseline, steepest_avx2, steepest_avx512;

#endif
