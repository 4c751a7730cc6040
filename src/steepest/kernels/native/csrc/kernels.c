/* All loops over entries. Compiled once for each level of instructions, with LEVEL its name. */
#include <math.h>
#include <stdint.h>

#include "formats.h"
#include "level.h"
#include "paste.h"

enum {
    BLOCK = 512,       /* entries that are summed in their own arithmetic before they join a longer sum */
    ROWS_AT_ONCE = 64, /* likewise rows */
    SPAN = 4096,       /* entries of a row that are summed in LANES sums before these join a longer one */
    LANES = 64,        /* entries of a stride, and sums kept side by side */
    NARROW = 128,      /* rows shorter than this are not worth a loop of their own */
    AHEAD = 2048       /* bytes between what a loop reads and what it asks for; 4096 is slower, 1024 equal */
};

#define ALWAYS static inline __attribute__((always_inline))
#define SAME(x) (x)
/* Ask for the stride that comes AHEAD bytes after this one. */
#define AHEAD_OF(p)                                                                                            \
    for (int64_t line_ = 0; line_ < (int64_t)(LANES * sizeof *(p)); line_ += 64)                               \
    __builtin_prefetch((const char *)(p) + AHEAD + line_)

/* float32 arithmetic */
#define C float
#define ROOT sqrtf
#define THIRD_ROOT third_root
#define NARROW_INVERSE reciprocal
#define NARROW_LEAST 0x1p-30
#define NARROW_SMALLEST 0x1p-40
#define WIDE double
#define WIDE_ROOT sqrt
#define WIDE_LEAST 0x1p-250

#define SUFFIX f32
#define W float
#define G float
#define LOAD_W SAME
#define STORE_W SAME
#define LOAD_G SAME
#include "types.h"

#define SUFFIX bf16
#define W bf16
#define G bf16
#define LOAD_W from_bf16
#define STORE_W to_bf16
#define LOAD_G from_bf16
#include "types.h"

#define SUFFIX bf16_f32
#define W bf16
#define G float
#define LOAD_W from_bf16
#define STORE_W to_bf16
#define LOAD_G SAME
#include "types.h"

#undef C
#undef ROOT
#undef THIRD_ROOT
#undef NARROW_INVERSE
#undef NARROW_LEAST
#undef NARROW_SMALLEST
#undef WIDE
#undef WIDE_ROOT
#undef WIDE_LEAST

/* float64 arithmetic */
#define C double
#define ROOT sqrt
#define THIRD_ROOT cbrt
#define NARROW_INVERSE 1 /
#define NARROW_LEAST 0x1p-250
#define NARROW_SMALLEST 0x1p-200
#define WIDE long double
#define WIDE_ROOT sqrtl
#define WIDE_LEAST 0x1p-250L

#define SUFFIX f64
#define W double
#define G double
#define LOAD_W SAME
#define STORE_W SAME
#define LOAD_G SAME
#include "types.h"

#include "finite.h"

static void elementwise(const Recipe *r, const Tensor *t, const Numbers *k, int64_t from, int64_t to)
{
    switch (t->types) {
    case F32:
        elementwise_f32(r, t, k, from, to);
        break;
    case F64:
        elementwise_f64(r, t, k, from, to);
        break;
    case BF16:
        elementwise_bf16(r, t, k, from, to);
        break;
    default:
        elementwise_bf16_f32(r, t, k, from, to);
    }
}

static void matrix(const Recipe *r, const Tensor *t, const Numbers *k, int64_t index, Team team, Scratch s)
{
    switch (t->types) {
    case F32:
        matrix_f32(r, t, k, index, team, s);
        break;
    case F64:
        matrix_f64(r, t, k, index, team, s);
        break;
    case BF16:
        matrix_bf16(r, t, k, index, team, s);
        break;
    default:
        matrix_bf16_f32(r, t, k, index, team, s);
    }
}

/* Sums of squares of rows [from, to) of a matrix, by row and by column. */
static void squares(const Array *a, int64_t index, int64_t from, int64_t to, double *rows, double *columns)
{
    const Tensor t = {.grad = a->entries, .rows = a->rows, .columns = a->columns};
    const Numbers as_it_is = {.sign = 1};
    int64_t at = index * a->rows * a->columns;
    switch (a->format) {
    case FORMAT_F32:
        measure_f32_narrow(&t, &as_it_is, at, from, to, rows, columns);
        break;
    case FORMAT_F64:
        measure_f64_narrow(&t, &as_it_is, at, from, to, rows, columns);
        break;
    default:
        measure_bf16_narrow(&t, &as_it_is, at, from, to, rows, columns);
    }
}

#define QUOTED_(name) #name
#define QUOTED(name) QUOTED_(name)
const Level PASTE(steepest, LEVEL) = {QUOTED(LEVEL), elementwise, matrix, finite, squares};
