/* What Python tells the kernels. Change STEEPEST_ABI here and in library.py with anything in this file. */
#ifndef STEEPEST_ABI_H
#define STEEPEST_ABI_H

#include <stdint.h>

#define STEEPEST_ABI 2

enum kind { ELEMENTWISE, NORMALIZED, EQUILIBRATED };
enum averaging { NO_AVERAGING, HEAVY_BALL, EMA };
enum square { NO_SQUARE, SQUARE_EMA, SQUARE_SUM };
enum power { POWER_ONE, POWER_HALF, POWER_THIRD };
enum placement { OUTSIDE, UNCORRECTED, INSIDE, FLOOR };
enum decay { DECOUPLED, AFTER, L2, CAUTIOUS };
enum axis { BOTH, ROWS, COLUMNS, NO_AXIS };

/* Types of weight and gradient; state has the type of the arithmetic: double for F64, else float. */
enum types { F32, F64, BF16, BF16_F32, TYPES };

/* A plan (see plans.py) and its numbers, the same for all parameters of a call. */
typedef struct {
    int32_t kind, averaging, nesterov, corrected, from_first;
    int32_t square, power, placement, square_corrected;
    int32_t sign, decay, maximize, axis, shift;
    double factor, lr, weight_decay, momentum, beta2, eps;
} Recipe;

/* One parameter: `matrices` matrices (rows, columns), contiguous. Pointers that a plan does not use are 0, and
   so may be `sums`, what a check has left of this gradient (see Array). */
typedef struct {
    void *weight;
    const void *grad;
    void *average, *square;
    const double *sums;
    int64_t matrices, rows, columns, types;
} Tensor;

/* Formats whose finiteness can be checked. */
enum format { FORMAT_F32, FORMAT_F64, FORMAT_BF16, FORMAT_F16 };

/* A gradient to be checked. If `sums` is not 0, the sums of squares of each matrix go there on the way: of its
   rows, then of its columns. There are none of FORMAT_F16. */
typedef struct {
    const void *entries;
    double *sums;
    int64_t matrices, rows, columns, format;
} Array;

#endif
