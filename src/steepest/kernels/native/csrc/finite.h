/* Whether all entries are finite: the largest exponent decides, so that bits are compared as integers. */

#define ENTRIES_FINITE(name, T, without_sign, infinity)                                                        \
    static int name(const T *x, int64_t n)                                                                     \
    {                                                                                                          \
        T most = 0;                                                                                            \
        for (int64_t i = 0; i < n; i++) {                                                                      \
            T size = x[i] & without_sign;                                                                      \
            most = size > most ? size : most;                                                                  \
        }                                                                                                      \
        return most < infinity;                                                                                \
    }

ENTRIES_FINITE(finite_f32, int32_t, 0x7fffffff, 0x7f800000)
ENTRIES_FINITE(finite_f64, int64_t, 0x7fffffffffffffff, 0x7ff0000000000000)
ENTRIES_FINITE(finite_bf16, int16_t, 0x7fff, 0x7f80)
ENTRIES_FINITE(finite_f16, int16_t, 0x7fff, 0x7c00)

/* Entries [from, to) of an array. */
static int finite(const Array *a, int64_t from, int64_t to)
{
    switch (a->format) {
    case FORMAT_F32:
        return finite_f32((const int32_t *)a->entries + from, to - from);
    case FORMAT_F64:
        return finite_f64((const int64_t *)a->entries + from, to - from);
    case FORMAT_BF16:
        return finite_bf16((const int16_t *)a->entries + from, to - from);
    default:
        return finite_f16((const int16_t *)a->entries + from, to - from);
    }
}
